package audit

import (
	"errors"
	"time"
)

// Query asks for one page of the audit log.
type Query struct {
	// Size is the number of rows asked for: 1 to 1000.
	Size int
	// After asks for rows at or after this Unix second (whether Kong counts the
	// second itself is not documented: callers must not depend on it). 0 sends no filter.
	After int64
	// Ascending asks for the oldest rows first. Otherwise no order is asked for.
	Ascending bool
	// Offset is the opaque token of the page before, or empty.
	Offset string
	// Preview, if not nil, is sent a preview of the page when its body has arrived whole and
	// is yet to be decoded. A source need not send one, and does not wait for a receiver.
	Preview chan<- Preview
}

// Preview is what a glance at the end of a page shows. It may be wrong: only the page
// itself is to be relied on, which may even turn out to be malformed.
type Preview struct {
	Offset string // of the page
	Last   int64  // timestamp of the last row, as Kong sent it
}

// Page is one answer of the audit log, complete and well-formed.
type Page struct {
	Entries []Entry // in the order in which Kong sent them
	Offset  string  // token of the next page; empty on the last one
	// Date is Kong's clock when it answered; zero if the answer did not say.
	Date time.Time
	// RequestIDs are the ids under which Kong records this read: one for each attempt that
	// Kong answered. It is empty if the answers did not say.
	RequestIDs []string
	// Bytes is the length of the answer's body.
	Bytes int
}

// ErrPageTooLarge is returned by a source for a page that holds more bytes than
// it is willing to keep. The caller asks for fewer rows.
var ErrPageTooLarge = errors.New("page too large")

// ErrBadOffset is returned by a source when Kong did not accept the offset.
// The caller starts the walk again.
var ErrBadOffset = errors.New("offset not accepted")

// ErrNoAuditLog is the error of a source if Kong answers that it has no audit
// log at all.
var ErrNoAuditLog = errors.New("kong has no audit log")

// ErrUnsupportedQuery is returned by a source when Kong refused the filter or the
// order of a query (400 to after, sort_by or sort_desc). A query without them may
// be answered.
var ErrUnsupportedQuery = errors.New("kong refuses to filter or sort the log")
