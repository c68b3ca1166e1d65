package pipeline

import (
	"slices"
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

const (
	maxWitnesses = 5

	// expiryMargin is how long before its expiry an entry is no longer expected to be
	// shown, in seconds: Kong purges expired rows by its database's clock.
	expiryMargin = 60 * 60
)

// witnesses are recorded entries by which a pass recognizes the log that was read
// before. They also gather those that the next pass will use.
type witnesses struct {
	recorded []audit.Witness // from the marks
	shown    bool            // the log has shown one of them
	newest   []audit.Witness // that the log has shown, newest first
}

// see takes an entry of the log. kongTime is Kong's clock when the walk began.
func (w *witnesses) see(e *audit.Entry, kongTime int64, recordTTL time.Duration) {
	w.shown = w.shown || Shown(w.recorded, e)
	if e.TimestampGuessed || e.Timestamp > kongTime || len(w.newest) == maxWitnesses && e.Timestamp <= w.newest[maxWitnesses-1].At {
		return
	}
	expires := e.Timestamp + int64(recordTTL/time.Second)
	if e.TTL >= 0 {
		expires = kongTime + e.TTL
	}
	at, _ := slices.BinarySearchFunc(w.newest, e.Timestamp, func(w audit.Witness, t int64) int { return int(t - w.At) })
	w.newest = slices.Insert(w.newest, at, audit.Witness{ID: strings.Clone(e.ID), At: e.Timestamp, Expires: expires})
	w.newest = w.newest[:min(len(w.newest), maxWitnesses)]
}

// missing returns the number of recorded entries that a walk from a floor should have
// shown, or 0 if it has shown one of them.
func (w *witnesses) missing(floor, now int64) (n int) {
	if w.shown {
		return 0
	}
	for _, r := range w.recorded {
		if r.At > floor && Retained(r, now) {
			n++
		}
	}
	return n
}

// Shown reports whether an entry of the log is one of the recorded ones.
func Shown(recorded []audit.Witness, e *audit.Entry) bool {
	for i := range recorded {
		if recorded[i].At == e.Timestamp && recorded[i].ID == e.ID {
			return true
		}
	}
	return false
}

// Retained reports whether Kong must still show a recorded entry. now is Kong's clock.
func Retained(w audit.Witness, now int64) bool { return now < w.Expires-expiryMargin }

// next returns the witnesses for the marks of a complete pass.
func (w *witnesses) next() []audit.Witness {
	if len(w.newest) == 0 {
		return w.recorded
	}
	return w.newest
}
