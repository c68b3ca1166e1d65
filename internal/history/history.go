// Package history says who changed an entity of Kong, when, and from what to what, from
// what Kong's two logs still hold. It needs no ledger.
package history

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/changes"
	"github.com/kong-cloudtrail/relay/internal/walk"
)

// Options say what to read, and from where. All but Since, Redact and Logger are required.
type Options struct {
	Requests, Objects walk.Source // Kong's two logs
	Entity            string      // kind of entity, as in the log or in a path of the Admin API
	Name              string      // name or id
	Since             int64       // Unix seconds; 0 for all that Kong holds
	Redact            []string    // paths of more secrets, as --redact names them
	Logger            *slog.Logger
}

// Event is one change of the entity, with the request that made it. The request's fields
// are empty if Kong holds no row of the request.
type Event struct {
	Time          string `json:"time"` // RFC 3339
	RequestID     string `json:"request_id"`
	UserID        string `json:"rbac_user_id,omitzero"`
	UserName      string `json:"rbac_user_name,omitzero"`
	RequestSource string `json:"request_source,omitzero"`
	SourceIP      string `json:"source_ip,omitzero"`
	Method        string `json:"method,omitzero"`
	Path          string `json:"path,omitzero"`
	Status        int    `json:"status,omitzero"`
	Workspace     string `json:"workspace,omitzero"`
	changes.Change
	// Note says what is not known, and why.
	Note string `json:"note,omitzero"`

	at int64
}

// Report is what the logs say of an entity.
type Report struct {
	Entity, Name string
	Events       []Event  // newest first
	Keys         []string // ids of the entities that have the name, or had it
	Similar      []string // names of entities of that kind, if none has this one
	Oldest       int64    // Unix second of the oldest row that was read; 0 if none was read
}

// Read reads the logs.
func Read(ctx context.Context, o Options) (*Report, error) {
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	key := make([]byte, 32)
	rand.Read(key)
	r := &reading{
		Options: o, masker: changes.NewMasker(key, o.Redact), dao: changes.KindNamed(o.Entity), part: longestPart(o.Name), names: map[string]bool{},
		objects: walk.NewReader(walk.Options{Source: o.Objects, Logger: o.Logger}), requests: walk.NewReader(walk.Options{Source: o.Requests, Logger: o.Logger}),
	}
	if err := r.readObjects(ctx); err != nil {
		return nil, err
	}
	if err := r.readRequests(ctx); err != nil {
		return nil, err
	}
	return r.report(), nil
}

const (
	// The order of two changes is certain if they lie so many seconds apart: apartUpdates by
	// the times that Kong keeps in entities, and apartRows by the times of their rows, which
	// Kong writes up to some seconds late.
	apartUpdates, apartRows = 2, 5
	// settled is the age of a change, in seconds, after which no earlier one is expected to
	// show up.
	settled = 5
)

// report puts the two logs together.
func (r *reading) report() *Report {
	out := &Report{Entity: r.dao, Name: r.Name, Oldest: r.oldest}
	for key := range r.keys {
		out.Keys = append(out.Keys, key)
		out.Events = append(out.Events, r.eventsOf(r.rows[key])...)
	}
	slices.Sort(out.Keys)
	for _, q := range r.rowless {
		e := Event{Change: changes.Change{Entity: r.dao, Name: r.Name, Operation: operationOf(q.Method), History: changes.Unavailable}, RequestID: q.RequestID}
		e.Note = "Kong has no row that says what this request changed"
		if r.now-q.Timestamp < settled {
			e.Note = "the row that says what this request changed may still come"
		}
		e.by(q)
		out.Events = append(out.Events, e)
	}
	out.Events = slices.DeleteFunc(out.Events, func(e Event) bool { return e.at < r.Since })
	slices.SortStableFunc(out.Events, func(a, b Event) int { return cmp.Compare(b.at, a.at) })
	if len(out.Keys) == 0 {
		out.Similar = slices.Sorted(maps.Keys(r.names))
	}
	return out
}

func operationOf(method string) string {
	switch method {
	case "POST":
		return changes.Create
	case "DELETE":
		return changes.Delete
	}
	return changes.Update
}

// by fills in the fields of the request that made the change.
func (e *Event) by(q *audit.Entry) {
	e.Time, e.at = moment(q.Timestamp), q.Timestamp
	e.UserID, e.UserName, e.RequestSource, e.SourceIP = q.RBACUserID, q.RBACUserName, q.RequestSource, q.ClientIP
	e.Method, e.Path, e.Status, e.Workspace = q.Method, q.Path, q.Status, q.Workspace
}

func moment(t int64) string { return time.Unix(t, 0).UTC().Format(time.RFC3339) }

// eventsOf returns the changes of one entity, newest first.
func (r *reading) eventsOf(rows []row) []Event {
	apart := clock(rows)
	slices.SortStableFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.clock, b.clock), cmp.Compare(rank(&a), rank(&b)), cmp.Compare(a.at, b.at))
	})
	var events []Event
	for i := range rows {
		w := &rows[i]
		e := Event{at: w.at, Time: moment(w.at), RequestID: w.requestID, UserID: w.userID}
		var before changes.State
		known := changes.Exact
		if w.operation != changes.Create && w.operation != changes.Delete {
			before, known, e.Note = r.before(rows, i, apart)
		}
		e.Change = changes.NewChange(r.dao, w.key, w.operation, before, w.state, known)
		if q := r.asked[w.requestID]; q != nil {
			e.by(q)
		} else {
			e.Note = strings.TrimPrefix(e.Note+"; Kong holds no row of the request, which would say who made it and from where", "; ")
		}
		events = append(events, e)
	}
	slices.Reverse(events)
	return events
}

// rank orders the changes of one second: creation first, deletion last.
func rank(w *row) int {
	return slices.Index([]string{changes.Create, changes.Update, changes.Delete}, w.operation)
}

// before returns the state before an update, how certain it is, and a note that says why it
// is not exact. The order of two changes is certain if they lie apart seconds apart.
func (r *reading) before(rows []row, i int, apart int64) (changes.State, changes.History, string) {
	w := &rows[i]
	if i == 0 || rows[i-1].operation == changes.Delete {
		return "", changes.Unavailable, "Kong holds no earlier state"
	}
	previous := &rows[i-1]
	certain := func(a, b *row) bool {
		return a.operation == changes.Create || b.operation == changes.Delete || b.clock-a.clock >= apart
	}
	switch {
	case !certain(previous, w), i+1 < len(rows) && !certain(w, &rows[i+1]), i > 1 && !certain(&rows[i-2], previous):
		return previous.state, changes.Approximate, fmt.Sprintf("changes less than %d s apart cannot be put in order", apart)
	case r.now-w.at < settled:
		return previous.state, changes.Approximate, "rows of earlier changes may still come"
	case slices.ContainsFunc(r.rowless, func(q *audit.Entry) bool {
		return q.Timestamp >= previous.clock-apart && q.Timestamp <= w.clock+apart
	}):
		return previous.state, changes.Approximate, "a request in between left no row"
	}
	return previous.state, changes.Exact, ""
}

// clock sets when the changes of an entity took place: by updated_at, the time that Kong
// keeps in the entity, if every state has it, else by the times of their rows. It returns how
// many seconds two of them must lie apart for their order to be certain.
func clock(rows []row) int64 {
	apart := int64(apartUpdates)
	for i := range rows {
		var ok bool
		if rows[i].clock, ok = rows[i].state.Number("updated_at"); !ok {
			apart = apartRows
		}
	}
	for i := range rows {
		if w := &rows[i]; apart == apartRows || w.operation == changes.Delete { // the state of a deletion is the one before it
			w.clock = w.at
		}
	}
	return apart
}
