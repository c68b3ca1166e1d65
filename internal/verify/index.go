package verify

import (
	"cmp"
	"hash/maphash"
	"slices"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// index is what Kong holds: of each entry a hash of its id, its timestamp, and what
// the destination has shown of it, 16 bytes together.
//
// A hash of two ids is the same with a probability of 1 in 30 million where there
// are a million ids. Its seed differs from run to run.
type index struct {
	seed    maphash.Seed
	buckets [256][]item // by the first byte of the hash; sorted once an id was looked up
	sorted  bool
}

// item is an entry of an index.
type item struct {
	hash uint64
	at   int64 // timestamp, shifted left, and the state
}

// What is known of an entry.
const (
	expected  = 1 << iota // the ledger calls it delivered
	shown                 // the destination holds it
	repeated              // more than once
	stateBits = iota
)

func newIndex() *index { return &index{seed: maphash.MakeSeed()} }

func (x *index) hash(id string) uint64 { return maphash.String(x.seed, id) }

func (i *item) is(state int64) bool { return i.at&state != 0 }

func (i *item) set(state int64) { i.at |= state }

func (i *item) timestamp() int64 { return i.at >> stateBits }

// add takes an entry in. A timestamp that no destination can name is cut.
func (x *index) add(id string, timestamp int64, state int64) {
	h := x.hash(id)
	b := &x.buckets[h>>56]
	*b = append(*b, item{h, min(max(timestamp, audit.MinEventTime), audit.MaxEventTime)<<stateBits | state})
	x.sorted = false
}

// sort makes an index ready for look-ups. A row that Kong has shown twice is one.
func (x *index) sort() {
	if x.sorted {
		return
	}
	for n, b := range x.buckets {
		slices.SortFunc(b, func(a, b item) int { return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(b.at, a.at)) })
		x.buckets[n] = slices.CompactFunc(b, func(a, b item) bool { return a.hash == b.hash })
	}
	x.sorted = true
}

// find returns the entry of an id, or nil.
func (x *index) find(id string) *item {
	x.sort()
	h := x.hash(id)
	b := x.buckets[h>>56]
	i, ok := slices.BinarySearchFunc(b, h, func(i item, h uint64) int { return cmp.Compare(i.hash, h) })
	if !ok {
		return nil
	}
	return &b[i]
}

// all calls f with each entry.
func (x *index) all(f func(*item)) {
	x.sort()
	for _, b := range x.buckets {
		for i := range b {
			f(&b[i])
		}
	}
}

// spans cuts a span of time so that each part has some n entries, but for those of
// one second; 0 leaves it whole.
func (x *index) spans(from, to int64, n int) [][2]int64 {
	var times []int64
	if n > 0 {
		x.all(func(i *item) { times = append(times, i.timestamp()) })
		slices.Sort(times)
	}
	var list [][2]int64
	for i := n; n > 0 && i < len(times); i += n {
		if t := times[i]; t > from && t < to {
			list, from = append(list, [2]int64{from, t}), t
		}
	}
	return append(list, [2]int64{from, to})
}
