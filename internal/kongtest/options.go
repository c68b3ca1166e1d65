package kongtest

import (
	"crypto/rsa"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
)

const (
	version   = "3.9.1.1"
	recordTTL = 30 * 24 * 60 * 60 // audit_log_record_ttl, in seconds
)

// Order is how GET /audit/requests sorts, and whether it knows filters.
type Order uint8

// Orders, by release.
const (
	// Filtered: newest first unless sort_desc=false, with after and before. From
	// 3.4.3.9, 3.5.0.5, 3.6.1.5 and 3.7 on.
	Filtered Order = iota
	// NewestFirst: by time, and unknown query parameters are ignored. 3.4.3.8 and 3.5.0.4.
	NewestFirst
	// Unordered: by the random request id, and unknown query parameters are
	// ignored. All releases before.
	Unordered
)

// Node is one of the control planes behind the address. Requests reach them in turn.
type Node struct {
	Hostname string
	Skew     time.Duration // added to the clock
}

// User is an RBAC user.
type User struct {
	Name, ID string // ID is a UUID
	Token    string
	// Forbidden refuses it the audit log with a 403.
	Forbidden bool
}

// Options shape a Server. The zero value is a current release without RBAC that
// records every request at once.
type Options struct {
	// Now is the clock of the control planes; time.Now by default. Delays are
	// in real time all the same.
	Now   func() time.Time
	Nodes []Node // by default one without skew

	Order Order
	// BareNext leaves size and filters out of the envelope's next, as Kong did before 3.1.
	BareNext bool
	// AfterExclusive leaves out the rows of the very second that after names. Kong's
	// documentation does not say whether Kong does so.
	AfterExclusive bool
	// OffsetPosition makes the offset a position in the list, which shifts when
	// rows come and go, rather than the key of the last row.
	OffsetPosition bool

	// AuditOff answers 404 on the audit log and records nothing.
	AuditOff bool
	// SkipReads records no reads of the audit log, as if audit_log_ignore_paths
	// were /audit/(requests|objects)(\?.+)?.
	SkipReads bool
	// PayloadExclude names the keys that Kong takes out of payloads, at any depth:
	// token, secret and password if it is nil.
	PayloadExclude []string

	// A request's row is written RowDelay after its answer, or a random time
	// between RowDelay and RowDelayMax if that is greater, or at [Server.ReleaseRows].
	// If both are 0, it is written before the answer.
	RowDelay, RowDelayMax time.Duration
	// LoseRows is the share of rows that Kong fails to insert, 0 to 1.
	LoseRows float64
	// LoseObjects is the same for rows of /audit/objects. Each of them has its own delay.
	LoseObjects float64
	// Delay, if set, replaces RowDelay and RowDelayMax: it returns the delay of a row, of
	// /audit/objects if object is true, else of /audit/requests.
	Delay func(object bool, random *rand.Rand) time.Duration
	// NoPayloads records no payloads, as Kong does with bodies that are not JSON.
	NoPayloads bool

	// Token, if not empty, turns RBAC on, and is the token of a user called admin.
	Token string
	// Users, if not empty, turn RBAC on as well.
	Users []User

	// SigningKey signs every row that has no signature.
	SigningKey *rsa.PrivateKey
	// SignTimestamp includes request_timestamp in what is signed.
	SignTimestamp bool

	// DateOffset is added to the Date header only. It emulates something before Kong whose
	// clock is wrong, or that answers from a cache.
	DateOffset time.Duration
	// Gzip compresses pages, whatever was asked for.
	Gzip bool

	// Latency is added to every page.
	Latency time.Duration
	// OnPage is called before each page is read, from several goroutines if there
	// are several readers. It may add and delete rows. The fault that it returns takes
	// precedence over those of Inject and Chances. It must not change r.Query.
	OnPage func(r Request) Fault
	// Answered is called after each request, from several goroutines.
	Answered func(r Request)
	// Chances are tried for each page, one after the other, until one of them happens.
	Chances []Chance
	// Seed makes Chances, LoseRows and delays repeatable. Request ids are always
	// random, so that two servers never make the same one.
	Seed uint64

	users []User // Users, and the one of Token
}

// filled returns the options with every default set.
func (o Options) filled() *Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if len(o.Nodes) == 0 {
		o.Nodes = []Node{{Hostname: "kong-cp-1"}}
	}
	if o.PayloadExclude == nil {
		o.PayloadExclude = []string{"token", "secret", "password"}
	}
	o.users = slices.Clone(o.Users)
	if o.Token != "" {
		o.users = append(o.users, User{Name: "admin", ID: auditlog.AdminID, Token: o.Token})
	}
	return &o
}
