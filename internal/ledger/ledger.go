// Package ledger holds what the forms of a ledger have in common. A ledger
// remembers which entries of the audit log have been delivered, and keeps what
// belongs to it: marks, dead letters, the lease of a pass, and what triggers
// announced. It has two forms with the same methods: redisledger, for any number
// of relays, and boltledger, a file for one. Package ledgertest checks both.
//
// A ledger belongs to one source and one destination. Its generation is a random
// id that is made with it, and its sequence a counter that grows with every record
// and every move of the marks. Begin pins the generation, and whoever looks up,
// records or moves marks afterwards learns by [audit.ErrLedgerReplaced] that the
// ledger has been emptied or replaced since, and by [audit.ErrLedgerOlder] that it
// has forgotten writes: it was restored from a snapshot, or a replica took over
// that lagged.
//
// Both forms are safe for concurrent use. A method that failed may be called
// again: each of them leaves the ledger as one call would.
package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

const (
	// DefaultLease is how long a lease lasts unless it is renewed. If its holder has died,
	// `relay once` waits for its end (so it is shorter than the default of --lease-wait), and
	// a relay that waits for an announced id takes over before that id counts as missing (so
	// it is shorter than announce.MissingAfter).
	DefaultLease = 10 * time.Second

	// MaxListed is how many announcements, and how many own reads, a ledger keeps.
	MaxListed = 10_000
	// AnnouncedLife is for how long it keeps an announcement.
	AnnouncedLife = 24 * time.Hour
	// OwnReadsLife is for how long it keeps an own read.
	OwnReadsLife = time.Hour

	// MaxOutages is how many outages a ledger keeps.
	MaxOutages = 10_000
	// OutageLife is for how long it keeps them.
	OutageLife = 400 * 24 * time.Hour

	// MemoryLife is for how long it remembers anything after it last remembered something.
	MemoryLife = 40 * 24 * time.Hour

	// UndeliveredAtOnce is how many undelivered entries are read at once.
	UndeliveredAtOnce = 100
	// UndeliveredBytesAtOnce is how large they are together, unless one alone is larger.
	UndeliveredBytesAtOnce = 1 << 20

	lifeMargin   = 24 * time.Hour // beyond Record.Retention
	minLife      = 26 * time.Hour
	maxRetention = 100 * 365 * 24 * time.Hour // of Record.Retention: a century, for what overflows

	// maxPlainID is the length up to which an id is stored as it is. Redis packs
	// no longer ones (hash-max-listpack-value is 64).
	maxPlainID = 64
)

// ErrNotBegun is a mistake of the caller.
var ErrNotBegun = errors.New("ledger written to before Begin")

// StoredID returns the form in which an id is stored: itself, or a hash of one that
// is long. No id of an entry begins with a tilde.
func StoredID(id string) string {
	if len(id) <= maxPlainID {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "~" + hex.EncodeToString(sum[:20])
}

const secondsADay = 24 * 60 * 60

// DayOf returns the number of the UTC day since 1970 that a Unix second falls on.
func DayOf(timestamp int64) int64 {
	day := timestamp / secondsADay
	if timestamp%secondsADay < 0 {
		day--
	}
	return day
}

// DayName returns the day as a person writes it, or its number if it is absurd.
func DayName(day int64) string {
	const year10000 = 2932897
	if day < 0 || day >= year10000 {
		return strconv.FormatInt(day, 10)
	}
	return time.Unix(day*secondsADay, 0).UTC().Format(time.DateOnly)
}

// Life returns how long a record that is made now has to stay in the ledger.
func Life(retention time.Duration) time.Duration {
	return max(minLife, min(retention, maxRetention)+lifeMargin)
}

// EncodeUndelivered checks a record and returns its undelivered entry in the form
// in which it is stored, or nil if it has none.
func EncodeUndelivered(r *audit.Record) ([]byte, error) {
	switch r.Outcome {
	case audit.Delivered, audit.Dropped, audit.Own:
		return nil, nil
	case audit.Dead, audit.Deferred:
		if r.Undelivered == nil {
			return nil, fmt.Errorf("%s without its entry", r.Outcome)
		}
		u := *r.Undelivered
		u.Outcome = r.Outcome
		return json.Marshal(u, jsontext.AllowInvalidUTF8(true))
	case audit.NoOutcome:
	}
	return nil, fmt.Errorf("outcome %d cannot be recorded", r.Outcome)
}

const brokenHint = "relay dead drop gives it up; relay verify --repair then reads it from Kong again, if Kong still has it"

// DecodeUndelivered is the reverse of EncodeUndelivered. Its error is an
// *[audit.UnreadableError]; it then returns the id only.
func DecodeUndelivered(id string, text []byte) (audit.Undelivered, error) {
	var u audit.Undelivered
	err := json.Unmarshal(text, &u, jsontext.AllowInvalidUTF8(true))
	switch {
	case err != nil:
		err = brokenAt(err)
	case u.Entry.ID == "" || u.Outcome != audit.Dead && u.Outcome != audit.Deferred:
		err = errors.New("it has no id or no outcome")
	}
	if err != nil {
		return audit.Undelivered{Entry: audit.Entry{ID: id, TTL: -1}}, &audit.UnreadableError{ID: id, Err: audit.WithHint(err, brokenHint)}
	}
	return u, nil
}

// brokenAt returns an error that says where a text is broken. The error of the codec may repeat a
// part of the text, such as a name or a time.
func brokenAt(err error) error {
	var offset int64
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		offset = e.ByteOffset
	} else if e, ok := errors.AsType[*json.SemanticError](err); ok {
		offset = e.ByteOffset
	}
	return fmt.Errorf("it is not what a relay writes, from byte %d on", offset)
}

// AppendOutage decodes an outage and appends it to a list unless it ended before a time. One that
// cannot be decoded is listed all the same, with what its place says of it: its id, and when it
// began, in Unix milliseconds.
func AppendOutage(list []audit.Outage, id string, from int64, text []byte, since time.Time) []audit.Outage {
	var o audit.Outage
	err := json.Unmarshal(text, &o)
	switch {
	case err != nil:
		err = brokenAt(err)
	case o.ID == "":
		err = errors.New("it has no id")
	}
	if err != nil {
		at := time.UnixMilli(from).UTC()
		o = audit.Outage{ID: id, Dependency: audit.UnknownDependency, Cause: "the ledger's record of this outage is broken: " + err.Error(), From: at, Seen: at}
	}
	if o.Seen.Before(since) {
		return list
	}
	return append(list, o)
}

// Address reduces the URL of a Kong to what tells it from another: without
// credentials, and however its scheme, host and last slash are written.
func Address(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return strings.TrimRight(s, "/")
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	u.Scheme, u.Host = strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	return u.String()
}

// Stored is an undelivered entry as it is stored.
type Stored struct {
	ID    string
	Since int64 // milliseconds
	Text  []byte
}

// Undelivered yields undelivered entries, the deferred ones first. page returns some of a
// kind, oldest first, that come after a place (""; the first), and the place of the last of
// them, or "" if there are none. An entry that cannot be decoded is yielded with its id,
// kind and time, and an *[audit.UnreadableError]; any other error ends the iteration.
func Undelivered(page func(kind audit.Outcome, after string) (list []Stored, last string, err error)) iter.Seq2[audit.Undelivered, error] {
	return func(yield func(audit.Undelivered, error) bool) {
		for _, kind := range []audit.Outcome{audit.Deferred, audit.Dead} {
			for after := ""; ; {
				list, last, err := page(kind, after)
				if err != nil {
					yield(audit.Undelivered{}, err)
					return
				}
				for _, s := range list {
					u, err := DecodeUndelivered(s.ID, s.Text)
					if err != nil {
						u.Outcome, u.Since = kind, time.UnixMilli(s.Since)
					}
					if !yield(u, err) {
						return
					}
				}
				if last == "" {
					break
				}
				after = last
			}
		}
	}
}

// Pin holds the generation that Begin found, and the largest sequence seen in it. Safe for
// concurrent use.
type Pin struct {
	mu         sync.RWMutex
	generation string
	sequence   int64
}

// Set pins a generation and its sequence.
func (p *Pin) Set(generation string, sequence int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.generation, p.sequence = generation, sequence
}

// Saw notes a sequence of a generation, unless another one is pinned by now.
func (p *Pin) Saw(generation string, sequence int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.generation == generation {
		p.sequence = max(p.sequence, sequence)
	}
}

// Get returns the pinned generation, or "" before Begin, and the largest sequence
// that was seen in it.
func (p *Pin) Get() (generation string, sequence int64) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.generation, p.sequence
}

// Begun reports whether a generation is pinned.
func (p *Pin) Begun() bool {
	generation, _ := p.Get()
	return generation != ""
}

// Check returns an error if a ledger is not the one that is pinned, or if its sequence is
// smaller than one that was seen or one at which its marks were written.
func (p *Pin) Check(generation string, sequence, marks int64) error {
	known, seen := p.Get()
	switch {
	case known == "":
		return nil
	case generation != known:
		return audit.ErrLedgerReplaced
	case sequence < max(seen, marks):
		return audit.ErrLedgerOlder
	}
	return nil
}

// Lease is held by whoever makes a pass. It lasts for [DefaultLease] unless it is
// renewed. Safe for concurrent use.
type Lease interface {
	// Renew makes the lease last its whole time from now, and reports whether another relay
	// has requested a rerun since Acquire, or since Renew or Release last reported one. It
	// fails with [audit.ErrLeaseLost] if the lease has run out or another relay holds it; a
	// call that fails has reported nothing.
	Renew(ctx context.Context) (rerun bool, err error)
	// Release gives up the lease, unless a rerun has been requested since: then it renews
	// the lease and returns true. The caller calls it again, and makes another pass. To
	// look and to give up are one step: no request is lost between them. It fails as Renew
	// does.
	Release(ctx context.Context) (rerun bool, err error)
	// SetMarks replaces the marks. It fails with [audit.ErrLeaseLost],
	// [audit.ErrLedgerReplaced] or [audit.ErrLedgerMismatch], and then writes nothing.
	SetMarks(ctx context.Context, marks audit.Marks) error
}
