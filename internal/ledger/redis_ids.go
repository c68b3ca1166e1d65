package ledger

import (
	"context"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // spreads ids over buckets, and is what scripts have
	_ "embed"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

var (
	//go:embed lua/router.lua
	routerSource string
	//go:embed lua/lookup.lua
	lookupSource string
	//go:embed lua/record.lua
	recordSource string

	lookupScript = redis.NewScript(routerSource + lookupSource)
	recordScript = redis.NewScript(routerSource + recordSource)
)

const (
	// lookupAtOnce and recordAtOnce bound what one script does, to some milliseconds.
	lookupAtOnce = 1000
	recordAtOnce = 500
	// undeliveredBytes bounds the undelivered entries that one script is sent, unless one alone is larger.
	undeliveredBytes = 4 << 20

	replaced = "replaced" // answer of a script that found another generation
)

// day is what a call says of one day.
type day struct {
	name string
	blob []byte
	at   []int32 // places in the call of the ids in blob
	keep time.Duration
}

// days sorts what a call says by day. Most calls have one or two.
type days struct {
	list  []day
	index map[int64]int
	last  int64
	at    int
	room  int // for the blob of the first day
}

func (d *days) of(timestamp int64) *day {
	number := dayOf(timestamp)
	if len(d.list) > 0 && number == d.last {
		return &d.list[d.at]
	}
	if d.index == nil {
		d.index = map[int64]int{}
	}
	at, ok := d.index[number]
	if !ok {
		at = len(d.list)
		d.index[number] = at
		d.list = append(d.list, day{name: dayName(number)})
		if at == 0 {
			d.list[0].blob = make([]byte, 0, d.room)
		}
	}
	d.last, d.at = number, at
	return &d.list[at]
}

// appendID appends an id as the scripts read it: 3 bytes of its hash, its length,
// the outcome unless it is [audit.New], and the id.
func appendID(b []byte, id string, outcome audit.Outcome) []byte {
	id = storedID(id)
	b = append(b, 0, 0, 0, byte(len(id)))
	if outcome != audit.New {
		b = append(b, '0'+byte(outcome))
	}
	start := len(b)
	b = append(b, id...)
	sum := sha1.Sum(b[start:]) //nolint:gosec // see above
	header := start - 4
	if outcome != audit.New {
		header--
	}
	copy(b[header:], sum[:3])
	return b
}

// Begin reads the ledger's generation, or makes the ledger, and pins the
// generation for what this value looks up and writes from now on. fresh says that
// this call made the ledger: it knows nothing yet.
func (r *Redis) Begin(ctx context.Context) (fresh bool, err error) {
	made := rand.Text()
	generation, err := beginScript.Run(ctx, r.client, r.keys("gen", "marks"), made).Text()
	if err != nil {
		return false, r.wrap("beginning", err)
	}
	r.pin.set(generation)
	return generation == made, nil
}

// Lookup returns the outcome of each entry, [audit.New] for those that the ledger
// does not know. It writes nothing, and makes one round trip for 1000 entries.
func (r *Redis) Lookup(ctx context.Context, entries []audit.Entry) ([]audit.Outcome, error) {
	out := make([]audit.Outcome, len(entries))
	for from := 0; from < len(entries); from += lookupAtOnce {
		to := min(from+lookupAtOnce, len(entries))
		if err := r.lookup(ctx, entries[from:to], out[from:to]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (r *Redis) lookup(ctx context.Context, entries []audit.Entry, out []audit.Outcome) error {
	const doing = "looking up entries"
	sorted := days{room: 40 * len(entries)}
	for i := range entries {
		d := sorted.of(entries[i].Timestamp)
		d.blob = appendID(d.blob, entries[i].ID, audit.New)
		d.at = append(d.at, int32(i))
	}
	args := make([]any, 1, 1+2*len(sorted.list))
	args[0] = r.pin.get()
	for i := range sorted.list {
		args = append(args, sorted.list[i].name, sorted.list[i].blob)
	}
	reply, err := lookupScript.Run(ctx, r.client, r.keys("gen"), args...).Result()
	if err != nil {
		return r.wrap(doing, err)
	}
	if reply == replaced {
		return fmt.Errorf("%s: %w", doing, audit.ErrLedgerReplaced)
	}
	answers, _ := reply.([]any)
	for i := range sorted.list {
		d := &sorted.list[i]
		if i >= len(answers) {
			return fmt.Errorf("%s: redis at %s: answer of %d days for %d", doing, r.where, len(answers), len(sorted.list))
		}
		digits, _ := answers[i].(string)
		if len(digits) != len(d.at) {
			return fmt.Errorf("%s: redis at %s: answer of %d outcomes for %d", doing, r.where, len(digits), len(d.at))
		}
		for k, at := range d.at {
			out[at] = audit.Outcome(digits[k] - '0')
		}
	}
	return nil
}

// Record writes down what became of entries. It is done once it returns nil; after
// an error some of them may be recorded, and the same call may be made again. What
// has been delivered stays so. It fails with [audit.ErrLedgerReplaced], and writes
// nothing more, if the generation is not the one that Begin pinned.
func (r *Redis) Record(ctx context.Context, records []audit.Record) error {
	undelivered := make([][]byte, len(records))
	for i := range records {
		text, err := encodeUndelivered(&records[i])
		if err != nil {
			return fmt.Errorf("recording %s: %w", records[i].ID, err)
		}
		undelivered[i] = text
	}
	for from := 0; from < len(records); {
		to, size := from, 0
		for to < len(records) && to-from < recordAtOnce && (size == 0 || size+len(undelivered[to]) <= undeliveredBytes) {
			size += len(undelivered[to])
			to++
		}
		if err := r.record(ctx, records[from:to], undelivered[from:to]); err != nil {
			return err
		}
		from = to
	}
	return nil
}

func (r *Redis) record(ctx context.Context, records []audit.Record, undelivered [][]byte) error {
	const doing = "recording outcomes"
	generation := r.pin.get()
	if generation == "" {
		return fmt.Errorf("%s: %w", doing, errNotBegun)
	}
	var only map[string]bool // nil: all
	for {
		args := recordArgs(generation, records, undelivered, only)
		reply, err := recordScript.Run(ctx, r.client, r.keys("gen"), args...).Result()
		if err != nil {
			return r.wrap(doing, err)
		}
		if reply == replaced {
			return fmt.Errorf("%s: %w", doing, audit.ErrLedgerReplaced)
		}
		left, ok := reply.([]any)
		if !ok {
			return fmt.Errorf("%s: redis at %s: answer of type %T", doing, r.where, reply)
		}
		if len(left) == 0 {
			return nil
		}
		only = make(map[string]bool, len(left))
		for _, id := range left {
			if id, ok := id.(string); ok {
				only[id] = true
			}
		}
	}
}

func recordArgs(generation string, records []audit.Record, undelivered [][]byte, only map[string]bool) []any {
	sorted := days{room: 40 * len(records)}
	for i := range records {
		rec := &records[i]
		if only != nil && !only[storedID(rec.ID)] {
			continue
		}
		d := sorted.of(rec.Timestamp)
		d.blob = appendID(d.blob, rec.ID, rec.Outcome)
		d.keep = max(d.keep, rec.Keep)
	}
	args := make([]any, 2, 2+3*len(sorted.list))
	args[0], args[1] = generation, len(sorted.list)
	for i := range sorted.list {
		d := &sorted.list[i]
		seconds := int64(life(d.keep)/time.Second) + 1
		args = append(args, d.name, seconds, d.blob)
	}
	for i, text := range undelivered {
		if id := storedID(records[i].ID); text != nil && (only == nil || only[id]) {
			since := strconv.FormatInt(records[i].Undelivered.Since.UnixMilli(), 10)
			args = append(args, id, since, strconv.Itoa(int(records[i].Outcome)), text)
		}
	}
	return args
}

func (r *Redis) keys(names ...string) []string {
	for i, name := range names {
		names[i] = r.prefix + name
	}
	return names
}
