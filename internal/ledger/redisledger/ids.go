package redisledger

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisconn"
)

var (
	//go:embed lua/guard.lua
	guardSource string
	//go:embed lua/begin.lua
	beginSource string
	//go:embed lua/lookup.lua
	lookupSource string
	//go:embed lua/record.lua
	recordSource string
	//go:embed lua/split.lua
	splitSource string

	beginScript  = redis.NewScript(beginSource)
	lookupScript = redis.NewScript(guardSource + lookupSource)
	recordScript = redis.NewScript(guardSource + recordSource)
	splitScript  = redis.NewScript(guardSource + splitSource)
)

const (
	// lookupAtOnce and recordAtOnce bound what one script does, to some milliseconds.
	lookupAtOnce = 1000
	recordAtOnce = 500
	// undeliveredBytes bounds the undelivered entries that one script is sent, unless
	// one alone is larger. Some servers refuse a request of more than a mebibyte.
	undeliveredBytes = 512 << 10

	// First words of the scripts' answers.
	answerOK      = "ok"
	replaced      = "replaced"
	older         = "older"
	changedLayout = "layout"
)

// run runs a script whose first argument is the generation known, and whose answer
// begins with a word. It notes the sequence of an answer that is ok, and fails if
// the ledger is another or an older one.
func (r *Ledger) run(ctx context.Context, doing string, script *redis.Script, keys []string, known string, args []any) ([]any, error) {
	answer, err := script.Run(ctx, r.client, keys, args...).Slice()
	if err != nil {
		return nil, r.wrap(doing, err)
	}
	if len(answer) == 0 {
		return nil, fmt.Errorf("%s: redis at %s: empty answer", doing, r.where)
	}
	switch answer[0] {
	case replaced:
		return nil, fmt.Errorf("%s: %w", doing, audit.ErrLedgerReplaced)
	case older:
		return nil, fmt.Errorf("%s: %w", doing, audit.ErrLedgerOlder)
	case answerOK:
		sequence, ok := toSequence(answer[min(1, len(answer)-1)])
		if !ok {
			return nil, fmt.Errorf("%s: redis at %s: answer without a sequence", doing, r.where)
		}
		r.pin.Saw(known, sequence)
	}
	return answer, nil
}

func toSequence(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case string:
		n, err := strconv.ParseInt(v, 10, 64)
		return n, err == nil
	}
	return 0, false
}

// Begin reads the ledger's generation, or makes the ledger, and pins the
// generation for what this value looks up and writes from now on. fresh reports
// that this call made the ledger: it knows nothing yet.
//
// It fails with [audit.ErrLedgerOlder] if the ledger has forgotten writes that this
// value has seen, or that its marks rest on. The ledger then has a new generation
// and no marks, and the next call succeeds.
func (r *Ledger) Begin(ctx context.Context) (fresh bool, err error) {
	const doing = "beginning"
	made := rand.Text()
	known, seen := r.pin.Get()
	answer, err := beginScript.Run(ctx, r.client, r.keys("gen", "seq", "marks"), made, known, seen).StringSlice()
	if err != nil {
		return false, r.wrap(doing, err)
	}
	if len(answer) != 3 {
		return false, fmt.Errorf("%s: redis at %s: answer of %d parts", doing, r.where, len(answer))
	}
	sequence, ok := toSequence(answer[2])
	if !ok {
		return false, fmt.Errorf("%s: redis at %s: answer without a sequence", doing, r.where)
	}
	r.pin.Set(answer[1], sequence)
	if answer[0] == older {
		return false, fmt.Errorf("%s: %w", doing, audit.ErrLedgerOlder)
	}
	return answer[1] == made, nil
}

// Lookup returns the outcome of each entry, [audit.NoOutcome] for those that the ledger
// does not know. It writes nothing, and makes one round trip for 1000 entries.
func (r *Ledger) Lookup(ctx context.Context, entries []audit.Entry) ([]audit.Outcome, error) {
	out := make([]audit.Outcome, len(entries))
	ids := make([]place, 0, min(len(entries), lookupAtOnce))
	for from := 0; from < len(entries); from += lookupAtOnce {
		to := min(from+lookupAtOnce, len(entries))
		ids = ids[:0]
		for i := from; i < to; i++ {
			ids = append(ids, place{ledger.StoredID(entries[i].ID), ledger.DayOf(entries[i].Timestamp)})
		}
		if err := r.lookup(ctx, ids, out[from:to]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// layoutTries bounds how often a call chooses buckets anew because others split
// them at the same time.
const layoutTries = 100

var errLayout = errors.New("buckets were split again and again meanwhile")

func (r *Ledger) lookup(ctx context.Context, ids []place, out []audit.Outcome) error {
	const doing = "looking up entries"
	for range layoutTries {
		p := r.newPlan(ids)
		known, seen := r.pin.Get()
		args := make([]any, 0, 3+len(p.days)+len(p.buckets)+len(ids))
		args = append(args, known, seen, len(p.days))
		for _, layout := range p.layouts {
			args = append(args, layout)
		}
		for i := range p.buckets {
			args = append(args, len(p.buckets[i].at))
			for _, at := range p.buckets[i].at {
				args = append(args, &ids[at].id) // a pointer needs no allocation
			}
		}
		answer, err := r.run(ctx, doing, lookupScript, p.keys(r, r.keys("gen", "seq")), known, args)
		if err != nil {
			return err
		}
		if r.learn(p.days, answer) {
			continue
		}
		digits, _ := answer[len(answer)-1].(string)
		if len(answer) != 3 || len(digits) != len(ids) {
			return fmt.Errorf("%s: redis at %s: answer of %d outcomes for %d", doing, r.where, len(digits), len(ids))
		}
		n := 0
		for i := range p.buckets {
			for _, at := range p.buckets[i].at {
				out[at] = audit.Outcome(digits[n] - '0')
				n++
			}
		}
		return nil
	}
	return fmt.Errorf("%s: %w", doing, errLayout)
}

// Record writes down what became of entries. It is done once it returns nil; after
// an error some of them may be recorded, and the same call may be made again. What
// has been delivered stays so. It fails with [audit.ErrLedgerReplaced] or
// [audit.ErrLedgerOlder], and writes nothing more, if the ledger is not the one
// that Begin pinned.
func (r *Ledger) Record(ctx context.Context, records []audit.Record) error {
	lines := make([]line, len(records))
	for i := range records {
		text, err := ledger.EncodeUndelivered(&records[i])
		if err != nil {
			return fmt.Errorf("recording %s: %w", records[i].ID, err)
		}
		rec := &records[i]
		lines[i] = line{
			place:   place{ledger.StoredID(rec.ID), ledger.DayOf(rec.Timestamp)},
			outcome: strconv.Itoa(int(rec.Outcome)),
			seconds: int64(ledger.Life(rec.Retention)/time.Second) + 1,
			text:    text,
		}
		if text != nil {
			lines[i].since = rec.Undelivered.Since.UnixMilli()
		}
	}
	for from := 0; from < len(lines); {
		to, size := from, 0
		for to < len(lines) && to-from < recordAtOnce && (size == 0 || size+len(lines[to].text) <= undeliveredBytes) {
			size += len(lines[to].text)
			to++
		}
		if err := r.record(ctx, lines[from:to]); err != nil {
			return r.tooLarge(ctx, err, size)
		}
		from = to
	}
	return nil
}

// tooLarge recognizes a server that closes the connection because it does not take
// a request of this size: it answers at once when it is asked for less.
func (r *Ledger) tooLarge(ctx context.Context, err error, size int) error {
	if size <= undeliveredBytes || !redisconn.Cut(err) || r.Ping(ctx) != nil {
		return err
	}
	return redisconn.TooLarge(fmt.Errorf("%w (a request of %d bytes)", err, size))
}

// line is a record as it is stored.
type line struct {
	place
	outcome string
	seconds int64 // to keep it
	text    []byte
	since   int64 // of the text, Unix milliseconds
}

func (r *Ledger) record(ctx context.Context, lines []line) error {
	const doing = "recording outcomes"
	for range layoutTries {
		known, seen := r.pin.Get()
		if known == "" {
			return fmt.Errorf("%s: %w", doing, ledger.ErrNotBegun)
		}
		ids := make([]place, len(lines))
		for i := range lines {
			ids[i] = lines[i].place
		}
		p := r.newPlan(ids)
		keys := p.keys(r, r.keys("gen", "seq", "undelivered", "dead", "deferred"))
		answer, err := r.run(ctx, doing, recordScript, keys, known, recordArgs(known, seen, &p, lines))
		if err != nil {
			return err
		}
		if r.learn(p.days, answer) {
			continue
		}
		var full []bucket
		for _, n := range answer[2:] {
			if n, ok := n.(int64); ok && n < int64(len(p.buckets)) {
				full = append(full, p.buckets[n])
			}
		}
		if len(full) == 0 {
			return nil
		}
		if err := r.split(ctx, &p, full); err != nil {
			return err
		}
		n := 0
		for i := range full {
			n += len(full[i].at)
		}
		left := make([]line, 0, n)
		for _, b := range full {
			for _, at := range b.at {
				left = append(left, lines[at])
			}
		}
		lines = left
	}
	return fmt.Errorf("%s: %w", doing, errLayout)
}

func recordArgs(known string, seen int64, p *plan, lines []line) []any {
	args := make([]any, 0, 3+2*len(p.days)+4*len(p.buckets)+2*len(lines))
	args = append(args, known, seen, len(p.days))
	seconds := make([]int64, len(p.days))
	for i := range p.buckets {
		b := &p.buckets[i]
		for _, at := range b.at {
			seconds[b.day] = max(seconds[b.day], lines[at].seconds)
		}
	}
	for i, layout := range p.layouts {
		args = append(args, layout, seconds[i])
	}
	for i := range p.buckets {
		b := &p.buckets[i]
		most, same := maxFields, lines[b.at[0]].outcome
		if depthOf(b.node) >= maxDepth {
			most = 1 << 30
		}
		for _, at := range b.at {
			if lines[at].outcome != same {
				same = ""
				break
			}
		}
		args = append(args, len(b.at), seconds[b.day], most, same)
		for _, at := range b.at {
			args = append(args, &lines[at].id)
		}
		if same != "" {
			continue
		}
		for _, at := range b.at {
			args = append(args, &lines[at].outcome)
		}
	}
	for i := range lines {
		if lines[i].text != nil {
			args = append(args, lines[i].id, lines[i].since, lines[i].outcome, lines[i].text)
		}
	}
	return args
}

// split splits buckets that are full, some at a time. What another relay splits
// meanwhile is left to the caller, who chooses buckets anew.
func (r *Ledger) split(ctx context.Context, p *plan, full []bucket) error {
	for len(full) > 0 {
		day, n := full[0].day, 1
		for n < len(full) && n < splitAtOnce && full[n].day == day {
			n++
		}
		name := p.days[day]
		keys := append(r.keys("gen", "seq"), r.prefix+name)
		known, seen := r.pin.Get()
		args := []any{known, seen, r.layouts.of(name), splitLevels}
		for _, b := range full[:n] {
			keys = append(keys, r.bucketKey(name, b.node))
			for part := range uint32(splitInto) {
				keys = append(keys, r.bucketKey(name, splitInto*b.node+part))
			}
			args = append(args, b.node, depthOf(b.node))
		}
		answer, err := r.run(ctx, "splitting buckets", splitScript, keys, known, args)
		if err != nil {
			return err
		}
		layout, _ := answer[len(answer)-1].(string)
		r.layouts.set(name, layout)
		if answer[0] == changedLayout {
			return nil
		}
		full = full[n:]
	}
	return nil
}

func (r *Ledger) keys(names ...string) []string {
	for i, name := range names {
		names[i] = r.prefix + name
	}
	return names
}
