package redisledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisconn"
)

const (
	// lookupAtOnce and recordAtOnce bound what one script does, to some milliseconds.
	lookupAtOnce = 1000
	recordAtOnce = 500
	// undeliveredBytes bounds the undelivered entries that one script gets, unless a single
	// one is larger. Some servers refuse a request of more than a mebibyte.
	undeliveredBytes = 512 << 10

	// layoutTries bounds how often a call chooses buckets again because another relay has
	// split them at the same time.
	layoutTries = 100
)

var errLayout = errors.New("buckets were split again and again meanwhile")

// Begin reads the ledger's generation, or makes the ledger if there is none. What r looks up
// and writes from then on fails if the generation is another one.
//
// Begin fails with [audit.ErrLedgerOlder] if the ledger has forgotten writes that r has
// seen, or on which its marks depend. The ledger then has a new generation and no marks, and
// the next call succeeds.
func (r *Ledger) Begin(ctx context.Context) error {
	const doing = "beginning"
	known, seen := r.pin.Get()
	answer, err := beginScript.Run(ctx, r.client, r.keys("gen", "seq", "marks"), rand.Text(), known, seen).StringSlice()
	if err != nil {
		return r.wrap(doing, err)
	}
	if len(answer) != 3 {
		return r.wrap(doing, errAnswer)
	}
	sequence, err := number(answer[2])
	if err != nil {
		return r.wrap(doing, errAnswer)
	}
	r.pin.Set(answer[1], sequence)
	if err := failures[answer[0]]; err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// Lookup returns the outcome of each entry, [audit.NoOutcome] for those that the ledger
// does not know. It writes nothing, and makes one round trip for each 1000 entries.
func (r *Ledger) Lookup(ctx context.Context, entries []audit.Entry) ([]audit.Outcome, error) {
	out := make([]audit.Outcome, len(entries))
	ids := make([]place, 0, min(len(entries), lookupAtOnce))
	left := out
	for part := range slices.Chunk(entries, lookupAtOnce) {
		ids = ids[:0]
		for i := range part {
			ids = append(ids, place{ledger.StoredID(part[i].ID), ledger.DayOf(part[i].Timestamp)})
		}
		if err := r.lookup(ctx, ids, left); err != nil {
			return nil, err
		}
		left = left[len(part):]
	}
	return out, nil
}

func (r *Ledger) lookup(ctx context.Context, ids []place, out []audit.Outcome) error {
	const doing = "looking up entries"
	for range layoutTries {
		p := r.newPlan(ids)
		args := make([]any, 2, 3+len(p.days)+len(p.buckets)+len(ids))
		args = append(args, len(p.days))
		for _, layout := range p.layouts {
			args = append(args, layout)
		}
		for _, b := range p.buckets {
			args = append(args, len(b))
			for _, s := range b {
				args = append(args, &ids[s.at].id) // a pointer needs no allocation
			}
		}
		word, answer, err := r.run(ctx, doing, lookupScript, p.keys(r, r.keys("gen", "seq")), args)
		if err != nil {
			return err
		}
		if word == changedLayout {
			r.learn(p.days, answer)
			continue
		}
		var digits string
		if len(answer) == 1 {
			digits, _ = answer[0].(string)
		}
		if len(digits) != len(ids) {
			return r.wrap(doing, errAnswer)
		}
		for _, b := range p.buckets {
			for i, s := range b {
				out[s.at] = audit.Outcome(digits[i] - '0')
			}
			digits = digits[len(b):]
		}
		return nil
	}
	return fmt.Errorf("%s: %w", doing, errLayout)
}

// Record stores what became of entries. After an error some of them may be stored, and the
// same call may be made again. An entry that is stored as delivered stays so. Record fails
// with [audit.ErrLedgerReplaced] or [audit.ErrLedgerOlder], and stores nothing more, if the
// ledger is not the one that Begin has found.
func (r *Ledger) Record(ctx context.Context, records []audit.Record) error {
	lines := make([]line, len(records))
	for i := range records {
		rec := &records[i]
		text, err := ledger.EncodeUndelivered(rec)
		if err != nil {
			return fmt.Errorf("recording %s: %w", rec.ID, err)
		}
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
	for len(lines) > 0 {
		n, size := 0, 0
		for n < min(len(lines), recordAtOnce) && (size == 0 || size+len(lines[n].text) <= undeliveredBytes) {
			size += len(lines[n].text)
			n++
		}
		if err := r.record(ctx, lines[:n]); err != nil {
			return r.tooLarge(ctx, err, size)
		}
		lines = lines[n:]
	}
	return nil
}

// tooLarge returns the error of a request of some size. It marks an error of a server that
// seems to have closed the connection because of that size, since it still answers a ping.
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
	seconds int64  // how long to keep it
	text    []byte // the undelivered entry, or nil
	since   int64  // since when the entry is undelivered, Unix milliseconds
}

func (r *Ledger) record(ctx context.Context, lines []line) error {
	const doing = "recording outcomes"
	if !r.pin.Begun() {
		return fmt.Errorf("%s: %w", doing, ledger.ErrNotBegun)
	}
	for range layoutTries {
		ids := make([]place, len(lines))
		for i := range lines {
			ids[i] = lines[i].place
		}
		p := r.newPlan(ids)
		keys := p.keys(r, r.keys("gen", "seq", "undelivered", "dead", "deferred"))
		word, answer, err := r.run(ctx, doing, recordScript, keys, recordArgs(&p, lines))
		if err != nil {
			return err
		}
		if word == changedLayout {
			r.learn(p.days, answer)
			continue
		}
		var full []bucket
		var left []line
		for _, n := range answer {
			if n, ok := n.(int64); ok && n < int64(len(p.buckets)) {
				full = append(full, p.buckets[n])
				for _, s := range p.buckets[n] {
					left = append(left, lines[s.at])
				}
			}
		}
		if len(full) == 0 {
			return nil
		}
		if err := r.split(ctx, &p, full); err != nil {
			return err
		}
		lines = left
	}
	return fmt.Errorf("%s: %w", doing, errLayout)
}

// recordArgs returns the arguments of the script record.
func recordArgs(p *plan, lines []line) []any {
	args := make([]any, 2, 3+2*len(p.days)+4*len(p.buckets)+2*len(lines))
	args = append(args, len(p.days))
	seconds := make([]int64, len(p.days))
	for _, b := range p.buckets {
		for _, s := range b {
			seconds[s.day] = max(seconds[s.day], lines[s.at].seconds)
		}
	}
	for i, layout := range p.layouts {
		args = append(args, layout, seconds[i])
	}
	for _, b := range p.buckets {
		most, same := maxFields, lines[b[0].at].outcome
		if depthOf(b.node()) >= maxDepth {
			most = 1 << 30
		}
		if slices.ContainsFunc(b, func(s spot) bool { return lines[s.at].outcome != same }) {
			same = ""
		}
		args = append(args, len(b), seconds[b.day()], most, same)
		for _, s := range b {
			args = append(args, &lines[s.at].id)
		}
		if same != "" {
			continue
		}
		for _, s := range b {
			args = append(args, &lines[s.at].outcome)
		}
	}
	for i := range lines {
		if lines[i].text != nil {
			args = append(args, lines[i].id, lines[i].since, lines[i].outcome, lines[i].text)
		}
	}
	return args
}

// split splits full buckets, some at a time. It stops if another relay has changed the
// layout in the meantime; the caller then chooses buckets again.
func (r *Ledger) split(ctx context.Context, p *plan, full []bucket) error {
	for len(full) > 0 {
		day, n := full[0].day(), 1
		for n < min(len(full), splitAtOnce) && full[n].day() == day {
			n++
		}
		name := p.days[day]
		keys := append(r.keys("gen", "seq"), r.prefix+name)
		args := []any{nil, nil, r.layouts.of(name), splitLevels}
		for _, b := range full[:n] {
			node := b.node()
			keys = append(keys, r.bucketKey(name, node))
			for part := range uint32(splitInto) {
				keys = append(keys, r.bucketKey(name, splitInto*node+part))
			}
			args = append(args, node, depthOf(node))
		}
		word, answer, err := r.run(ctx, "splitting buckets", splitScript, keys, args)
		if err != nil {
			return err
		}
		r.learn(p.days[day:day+1], answer)
		if word == changedLayout {
			return nil
		}
		full = full[n:]
	}
	return nil
}

// keys returns the keys with names. It overwrites names.
func (r *Ledger) keys(names ...string) []string {
	for i, name := range names {
		names[i] = r.prefix + name
	}
	return names
}
