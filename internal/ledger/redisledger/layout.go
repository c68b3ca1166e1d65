package redisledger

import (
	"cmp"
	"crypto/sha1" //nolint:gosec // spreads ids over buckets; scripts have no other hash
	"math/bits"
	"slices"
	"strconv"
	"sync"

	"github.com/kong-cloudtrail/relay/internal/ledger"
)

// The ids of a day are in buckets: hashes of Redis, of at most maxFields fields. Redis
// packs hashes of up to 512 fields, but reads a packed one from end to end, so that larger
// ones would cost more time than they save memory. A bucket that would grow beyond that is
// split by a bit of each id's SHA-1: node 1 is the whole day, and nodes 2n and 2n+1 are the
// halves of node n. The layout of a day is a bitmap that says which nodes are split. A day
// that was never split has none.
//
// A script must declare the keys that it touches, so the caller chooses them by
// the layouts that it knows, and the script answers with the layouts if they have
// changed.
const (
	maxFields = 192
	maxDepth  = 20
	// A full bucket is split twice at once: every id moves half as often, and the buckets,
	// which are read from end to end, stay shorter.
	splitLevels = 2
	splitInto   = 1 << splitLevels
	// splitAtOnce bounds the nodes that one script splits, to about a thousand ids.
	splitAtOnce = 5
	// maxLayouts bounds the days whose layouts are remembered.
	maxLayouts = 400
)

// layouts remembers the layout of each day that was used, by the day's name.
type layouts struct {
	mu   sync.Mutex
	days map[string]string
}

func (l *layouts) of(day string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.days[day]
}

func (l *layouts) set(day string, layout any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.days == nil || len(l.days) >= maxLayouts {
		l.days = map[string]string{}
	}
	l.days[day], _ = layout.(string)
}

// hashOf returns 24 bits of an id's SHA-1.
func hashOf(id string) uint32 {
	sum := sha1.Sum([]byte(id)) //nolint:gosec // see above
	return uint32(sum[0])<<16 | uint32(sum[1])<<8 | uint32(sum[2])
}

// nodeOf returns the node that holds ids with a hash.
func nodeOf(layout string, hash uint32) uint32 {
	node := uint32(1)
	for int(node/8) < len(layout) && layout[node/8]>>(7-node%8)&1 == 1 {
		node, hash = 2*node+hash&1, hash>>1
	}
	return node
}

func depthOf(node uint32) int { return bits.Len32(node) - 1 }

// place is where an id belongs.
type place struct {
	id  string // as it is stored
	day int64
}

// plan sorts the ids of a call by bucket.
type plan struct {
	days    []string
	layouts []string // of days, as the plan assumes them
	buckets []bucket
}

// bucket is the ids of a call that belong to one bucket. It is not empty.
type bucket []spot

// spot is an id of a call, and the bucket to which it belongs.
type spot struct {
	day  int32 // index in plan.days
	node uint32
	at   int32 // index of the id in the call
}

func (b bucket) day() int     { return int(b[0].day) }
func (b bucket) node() uint32 { return b[0].node }

// newPlan returns the plan of a call for ids, which usually are of one or two days.
func (r *Ledger) newPlan(ids []place) plan {
	var p plan
	var days []int64
	spots := make([]spot, len(ids))
	for i := range ids {
		day := slices.Index(days, ids[i].day)
		if day < 0 {
			day = len(days)
			days = append(days, ids[i].day)
			name := ledger.DayName(ids[i].day)
			p.days, p.layouts = append(p.days, name), append(p.layouts, r.layouts.of(name))
		}
		spots[i] = spot{int32(day), nodeOf(p.layouts[day], hashOf(ids[i].id)), int32(i)}
	}
	slices.SortFunc(spots, func(a, b spot) int {
		return cmp.Or(cmp.Compare(a.day, b.day), cmp.Compare(a.node, b.node), cmp.Compare(a.at, b.at))
	})
	for from, to := 0, 0; to < len(spots); from = to {
		for to < len(spots) && spots[to].day == spots[from].day && spots[to].node == spots[from].node {
			to++
		}
		p.buckets = append(p.buckets, spots[from:to])
	}
	return p
}

// keys appends the keys of the plan: the layouts of its days, then its buckets.
func (p *plan) keys(r *Ledger, keys []string) []string {
	keys = slices.Grow(keys, len(p.days)+len(p.buckets))
	for _, day := range p.days {
		keys = append(keys, r.prefix+day)
	}
	for _, b := range p.buckets {
		keys = append(keys, r.bucketKey(p.days[b.day()], b.node()))
	}
	return keys
}

func (r *Ledger) bucketKey(day string, node uint32) string {
	return r.prefix + day + ":" + strconv.FormatUint(uint64(node), 10)
}

// learn remembers the layouts of days that a script has returned.
func (r *Ledger) learn(days []string, layouts []any) {
	for i, day := range days[:min(len(days), len(layouts))] {
		r.layouts.set(day, layouts[i])
	}
}
