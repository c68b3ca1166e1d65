package kongtest

import (
	"crypto/rsa"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
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

// Next is how the envelope's next is built.
type Next uint8

// Ways to build next, by release.
const (
	NextFull      Next = iota // repeats size and filters; from 3.9 on
	NextNoFilters             // loses the filters; from 3.1 on
	NextBare                  // loses size as well
)

// Encoding is how something before Kong changes a page's bytes.
type Encoding uint8

// Encodings.
const (
	Plain Encoding = iota
	Gzip           // compressed, with Content-Encoding
	BOM            // with a byte order mark
)

// Node is one of the control planes behind the address. Requests reach them in turn.
type Node struct {
	Hostname string
	ID       string        // UUID
	Skew     time.Duration // added to the clock
	// Differs turns a node of a rolling upgrade into one of another release: its
	// answers follow the options that it changes. It must only change Order, Strict,
	// AfterExclusive, BeforeInclusive and Next.
	Differs func(*Options)
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
	// measured by real time all the same.
	Now   func() time.Time
	Nodes []Node // one without skew by default

	Version      string // as in GET /; 3.9.1.1 by default
	ServerHeader string // kong/<version>-enterprise-edition by default
	// RootFails answers GET / with a 500, as 3.9 does where a plugin server runs.
	RootFails bool

	Order Order
	Next  Next
	// AfterExclusive leaves out the second that after names; BeforeInclusive
	// includes the one that before names. Kong's documentation does not say.
	AfterExclusive, BeforeInclusive bool
	// Strict answers 400 to the query parameters that Order does not know, rather than
	// ignoring them.
	Strict bool
	// OffsetPosition makes the offset a position in the list, which shifts when
	// rows come and go, rather than the key of the last row.
	OffsetPosition bool

	// RecordTTL is how long rows are kept: 30 days by default.
	RecordTTL time.Duration
	NoTTL     bool     // rows are shown without ttl
	Omit      []string // fields that the release does not have

	// AuditOff answers 404 on the audit log and records nothing.
	AuditOff bool
	// SkipReads records no reads of the audit log, like audit_log_ignore_paths
	// set to /audit/(requests|objects)(\?.+)?.
	SkipReads bool
	// IgnorePaths and IgnoreMethods are Kong's audit_log_ignore_paths and
	// audit_log_ignore_methods.
	IgnorePaths   *regexp.Regexp
	IgnoreMethods []string
	// PayloadExclude names the keys that are taken out of payloads, at any depth;
	// token, secret and password if it is nil.
	PayloadExclude []string

	// A request's row is written RowDelay after its answer, or a random time
	// between RowDelay and RowDelayMax if that is greater. With neither it is
	// there before the answer is.
	RowDelay, RowDelayMax time.Duration
	// HoldRows keeps rows back until [Server.ReleaseRows].
	HoldRows bool
	// BackDate sets the timestamps of rows so far back.
	BackDate time.Duration
	// LoseRows is the share of rows that Kong fails to insert, 0 to 1.
	LoseRows float64
	// ObjectDelay, ObjectDelayMax and LoseObjects are the same for each row of
	// /audit/objects; with neither delay, RowDelay and RowDelayMax are theirs as well.
	ObjectDelay, ObjectDelayMax time.Duration
	LoseObjects                 float64
	// Stragglers is the share of rows, of both tables, that come later by StragglerDelay.
	Stragglers     float64
	StragglerDelay time.Duration
	// IgnoreTables is Kong's audit_log_ignore_tables.
	IgnoreTables []string
	// NoPayloads records no payloads, as of bodies that are not JSON.
	NoPayloads bool

	// Token turns RBAC on, with this token for a user called admin.
	Token string
	// Users turn RBAC on as well.
	Users []User

	// SigningKey signs every row that has no signature.
	SigningKey *rsa.PrivateKey
	// SignTimestamp includes request_timestamp in what is signed.
	SignTimestamp bool

	// DateOffset is added to the Date header alone, as by a node whose clock is wrong
	// or by something before Kong that answers from a cache.
	DateOffset time.Duration
	// CachedHeaders repeats the X-Kong-Admin-Request-ID of the last request that was
	// not for the audit log on every page, as a cache before Kong does.
	CachedHeaders bool
	// Encoding of pages, whatever was asked for.
	Encoding Encoding
	// DefaultCertificate makes TLS listeners use a certificate as Kong makes one by
	// itself: self-signed, and without any name but the common name localhost.
	DefaultCertificate bool

	// Latency is added to every page.
	Latency time.Duration
	// OnPage is called before each page is read, from several goroutines if there
	// are several readers. It may add and delete rows; the fault it returns goes
	// before those of Inject and Chances. r.Query must not be changed.
	OnPage func(r Request) Fault
	// Answered is called after each request, from several goroutines.
	Answered func(r Request)
	// Chances are tried for each page in turn; the first that hits is the fault.
	Chances []Chance
	// Seed makes Chances, LoseRows and delays repeatable. Request ids are always
	// random, so that two servers never make the same one.
	Seed uint64

	// ClientCert makes TLS listeners require a certificate of the server's own CA.
	ClientCert bool

	users []User // all of them
}

// Release returns the options with which a release of Kong behaves as its
// changelogs say. The version has two to four numbers.
func Release(version string) (Options, error) {
	v, err := parseVersion(version)
	if err != nil {
		return Options{}, err
	}
	o := Options{Version: version}
	if v.before(3, 0, 0, 0) && !strings.Contains(version, "enterprise") {
		o.Version += "-enterprise-edition"
	}
	switch {
	case v.has(3, 4, 3, 9), v.has(3, 5, 0, 5), v.has(3, 6, 1, 5), !v.before(3, 7, 0, 0):
		o.Order = Filtered
	case v.has(3, 4, 3, 8), v.has(3, 5, 0, 4):
		o.Order = NewestFirst
	default:
		o.Order = Unordered
	}
	switch {
	case v.before(3, 1, 0, 0):
		o.Next = NextBare
	case v.before(3, 9, 0, 0):
		o.Next = NextNoFilters
	}
	if v.before(3, 2, 0, 0) {
		o.Omit = append(o.Omit, "rbac_user_name", "request_source")
	}
	if v.before(2, 8, 0, 0) {
		o.Omit = append(o.Omit, "removed_from_payload")
	}
	return o, nil
}

type version [4]int

func parseVersion(s string) (version, error) {
	var v version
	number, _, _ := strings.Cut(s, "-")
	parts := strings.Split(number, ".")
	if len(parts) < 2 || len(parts) > len(v) {
		return v, fmt.Errorf("parsing version %q: want two to four numbers", s)
	}
	for i, p := range parts {
		n, err := strconv.Atoi(p)
		if err != nil || n < 0 {
			return v, fmt.Errorf("parsing version %q: want two to four numbers", s)
		}
		v[i] = n
	}
	return v, nil
}

func (v version) before(w ...int) bool {
	for i, n := range w {
		if v[i] != n {
			return v[i] < n
		}
	}
	return false
}

// has tells whether v is of the same minor release, and no older.
func (v version) has(w ...int) bool {
	return v[0] == w[0] && v[1] == w[1] && !v.before(w...)
}

// filled returns the options with every default set.
func (o Options) filled() *Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if len(o.Nodes) == 0 {
		o.Nodes = []Node{{Hostname: "kong-cp-1", ID: "f5b5e1f0-4f3e-4a64-8c5f-0f2f9e1a7b01"}}
	}
	if o.Version == "" {
		o.Version = "3.9.1.1"
	}
	if o.ServerHeader == "" {
		o.ServerHeader = "kong/" + strings.TrimSuffix(o.Version, edition) + edition
	}
	if o.RecordTTL == 0 {
		o.RecordTTL = 30 * 24 * time.Hour
	}
	if o.PayloadExclude == nil {
		o.PayloadExclude = []string{"token", "secret", "password"}
	}
	o.users = slices.Clone(o.Users)
	if o.Token != "" {
		o.users = append(o.users, User{Name: "admin", ID: adminID, Token: o.Token})
	}
	return &o
}

const (
	edition = "-enterprise-edition"
	adminID = "2e959b45-0053-41cc-9c2c-5458d0964331"
)
