package history

import (
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/changes"
	"github.com/kong-cloudtrail/relay/internal/walk"
)

// reading is one run of Read.
type reading struct {
	Options
	masker            *changes.Masker
	objects, requests *walk.Reader
	dao               string
	part              string // of the name, the same in every JSON encoding of it

	known   bool                // keys is complete
	keys    map[string]bool     // ids of the entities that the name or id stands for
	rows    map[string][]row    // by the id of the entity: of those, and of some that may turn out to belong to them
	seen    map[string]bool     // ids of those rows
	held    int                 // bytes of their texts
	dropped map[uint64]struct{} // hashes of the ids of entities of which a row was not kept
	names   map[string]bool     // some names that entities of that kind have
	ids     map[uint64]struct{} // hashes of the ids of requests that left rows
	now     int64               // Kong's clock
	oldest  int64

	asked   map[string]*audit.Entry // requests by id
	rowless []*audit.Entry          // requests that may have changed the entity and left no row
}

// row is a row of /audit/objects.
type row struct {
	requestID, userID, key, operation string

	at            int64 // when it was written
	guessed       bool  // Kong did not give at
	clock         int64 // when the change took place; see clock
	text, removed string
	state         changes.State
}

const (
	// maxHeld bounds the rows, in bytes, of entities that may turn out to be the ones asked
	// for, because they are renamed later. A relay that serves has little memory: if the rows
	// of such an entity did not fit, the log is read once more.
	maxHeld = 2 << 20
	// maxMeant bounds the rows of the entities that were asked for, in bytes.
	maxMeant = 512 << 20
	// maxSpan is the longest part of a log, in seconds, that readBefore reads at once. Beyond
	// it, readBefore reads all that is older.
	maxSpan    = 7 * 24 * 3600
	maxSimilar = 5
)

// errTooLarge is returned for a history that does not fit into memory.
var errTooLarge = fmt.Errorf("the states of the entity take more than %d MB: give a later --since", maxMeant>>20)

// readObjects finds the entities that were asked for, and their rows.
func (r *reading) readObjects(ctx context.Context) error {
	if err := r.scanObjects(ctx, max(0, r.Since-slack), 0); err != nil {
		return err
	}
	r.known = true
	for key := range r.keys {
		if _, incomplete := r.dropped[hash(key)]; incomplete {
			if err := r.scanObjects(ctx, r.Since, 0); err != nil {
				return err
			}
			break
		}
	}
	if err := r.readBefore(ctx); err != nil {
		return err
	}
	for key, rows := range r.rows {
		if !r.keys[key] {
			delete(r.rows, key)
			continue
		}
		begin := r.begin(rows)
		rows = slices.DeleteFunc(rows, func(w row) bool { return w.at < begin })
		r.rows[key] = rows
		for i := range rows {
			rows[i].state = r.masker.Mask(r.dao, key, rows[i].text, rows[i].removed)
			rows[i].text = ""
		}
	}
	return nil
}

// readBefore finds the rows that say what the entities were before r.Since. It reads the
// log backwards, in parts that grow.
func (r *reading) readBefore(ctx context.Context) error {
	from := r.Since
	for span := max(r.now-r.Since, 3600); from > 0 && !r.reachesBack(from); span *= 4 {
		until := from
		if from -= span; span > maxSpan || r.objects.Order() != walk.OldestFirst {
			from = 0
		}
		later := r.rows
		if err := r.scanObjects(ctx, from, until); err != nil {
			return err
		}
		for key, rows := range later {
			r.rows[key] = append(r.rows[key], rows...)
		}
	}
	return nil
}

// reachesBack reports whether no rows from before a second are needed.
func (r *reading) reachesBack(from int64) bool {
	for key := range r.keys {
		if r.begin(r.rows[key])-2*slack < from {
			return false
		}
	}
	return true
}

// begin returns the second from which the rows of an entity are needed: slack before its last
// change before r.Since, as rows come in any order. It is 0 if no such change was found.
func (r *reading) begin(rows []row) int64 {
	second := int64(0)
	for i := range rows {
		if w := &rows[i]; w.at < r.Since {
			second = max(second, w.at-slack)
		}
	}
	return second
}

// scanObjects reads a part of the log.
func (r *reading) scanObjects(ctx context.Context, since, until int64) error {
	begin := func() {
		r.rows, r.held, r.seen = map[string][]row{}, 0, map[string]bool{}
		if !r.known {
			r.keys, r.ids, r.dropped = map[string]bool{}, map[uint64]struct{}{}, map[uint64]struct{}{}
		}
	}
	begin()
	return scan(ctx, r.objects, since, until, func(page walk.Step) error {
		if page.Restart {
			begin()
			return nil
		}
		r.now = max(r.now, page.Now)
		for i := range page.Entries {
			e := &page.Entries[i]
			if e.Object == nil {
				continue
			}
			r.ids[hash(e.RequestID)] = struct{}{}
			if !e.TimestampGuessed && (r.oldest == 0 || e.Timestamp < r.oldest) {
				r.oldest = e.Timestamp
			}
			if e.Object.DAO != r.dao || r.seen[e.ID] || !r.known && e.Timestamp < r.Since {
				continue
			}
			if err := r.keep(e); err != nil {
				return err
			}
		}
		return nil
	})
}

// keep keeps a row of the kind of entity that was asked for, unless it is of another entity.
func (r *reading) keep(e *audit.Entry) error {
	o := e.Object
	if !r.known && r.means(o) {
		r.keys[strings.Clone(o.Key)] = true
	}
	switch meant := r.keys[o.Key]; {
	case r.known && !meant:
		return nil
	case !meant && r.held+len(o.Entity) > maxHeld:
		r.dropped[hash(o.Key)] = struct{}{}
		return nil
	}
	if r.held += len(o.Entity); r.held > maxMeant {
		return errTooLarge
	}
	w := row{
		requestID: strings.Clone(e.RequestID), userID: strings.Clone(e.RBACUserID), key: strings.Clone(o.Key), operation: strings.Clone(o.Operation),
		at: e.Timestamp, text: strings.Clone(o.Entity), removed: strings.Clone(o.Removed), guessed: e.TimestampGuessed,
	}
	r.rows[w.key] = append(r.rows[w.key], w)
	r.seen[strings.Clone(e.ID)] = true
	return nil
}

// means reports whether a row belongs to an entity with the given name or id.
func (r *reading) means(o *audit.Object) bool {
	if o.Key == r.Name {
		return true
	}
	if len(r.names) < maxSimilar {
		if name := r.masker.Mask(o.DAO, o.Key, o.Entity, o.Removed).Name(); name != "" {
			r.names[name] = true
		}
	}
	return strings.Contains(o.Entity, r.part) && changes.State(o.Entity).Name() == r.Name
}

// longestPart returns the longest part of a name that is the same in every JSON encoding of it.
func longestPart(name string) string {
	longest := ""
	for part := range strings.FieldsFuncSeq(name, func(c rune) bool { return c > '~' || c < ' ' || strings.ContainsRune(`"\/<>&'`, c) }) {
		if len(part) > len(longest) {
			longest = part
		}
	}
	return longest
}

var seed = maphash.MakeSeed()

func hash(id string) uint64 { return maphash.String(seed, id) }

// readRequests finds the requests that made the changes, and those that may have changed the
// entity and left no row.
func (r *reading) readRequests(ctx context.Context) error {
	wanted, called, floor := map[string]bool{}, map[string]bool{r.Name: true}, r.Since
	for key, rows := range r.rows {
		called[key] = true
		for i := range rows {
			w := &rows[i]
			wanted[w.requestID], called[w.state.Name()] = true, true
			if floor = min(floor, w.at-slack); w.guessed { // a row from before Kong was upgraded
				floor = 0
			}
		}
	}
	begin := func() { r.asked, r.rowless = map[string]*audit.Entry{}, nil }
	begin()
	err := scan(ctx, r.requests, max(floor, 0), 0, func(page walk.Step) error {
		if page.Restart {
			begin()
			return nil
		}
		r.now = max(r.now, page.Now)
		for i := range page.Entries {
			e := &page.Entries[i]
			switch {
			case wanted[e.RequestID]:
				if r.asked[e.RequestID] == nil {
					r.asked[strings.Clone(e.RequestID)] = shown(e)
				}
			case e.IsWrite() && e.Status < 300 && r.concerns(e.Path, called):
				if _, has := r.ids[hash(e.RequestID)]; !has && !slices.ContainsFunc(r.rowless, func(q *audit.Entry) bool { return q.RequestID == e.RequestID && q.Timestamp == e.Timestamp }) {
					r.rowless = append(r.rowless, shown(e))
				}
			}
		}
		return nil
	})
	for _, rows := range r.rows {
		for i := range rows {
			if q := r.asked[rows[i].requestID]; q != nil && rows[i].guessed {
				rows[i].at = q.Timestamp
			}
		}
	}
	return err
}

// slack is how many seconds the row of a request and that of what it changed may lie apart.
const slack = 60

// concerns reports whether a path of the Admin API names the entity, or may name it by a
// relation, as /routes/orders/service names a service.
func (r *reading) concerns(path string, called map[string]bool) bool {
	list, name := changes.Target(path)
	return called[name] && changes.KindNamed(list) == r.dao || changes.NamesByRelation(path, r.dao)
}

// shown returns a copy of a request without what a history does not show, out of the memory of
// its page.
func shown(e *audit.Entry) *audit.Entry {
	q := *e
	q.Payload, q.Unknown, q.Signature = "", "", ""
	q.Detach()
	return &q
}
