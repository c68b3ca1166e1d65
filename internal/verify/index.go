package verify

import (
	"cmp"
	"hash/maphash"
	"slices"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// index holds 16 bytes for each entry that Kong holds: a hash of its id, its timestamp,
// and what the ledger and the destination say about it.
//
// That any two of a million ids have the same hash has a probability of 1 in 37 million. The
// seed of the hash differs from run to run.
type index struct {
	seed    maphash.Seed
	buckets [256][]item // by the first byte of the hash
	sorted  bool        // each bucket is sorted by hash
}

// item is an entry of an index.
type item struct {
	hash uint64
	at   int64 // timestamp<<stateBits | state
}

// Bits of an entry's state.
const (
	expected  = 1 << iota // delivered, according to the ledger
	shown                 // the destination holds it
	repeated              // the destination holds it more than once
	stateBits = iota
)

func (x *index) hash(id string) uint64 { return maphash.String(x.seed, id) }

func (i *item) is(state int64) bool { return i.at&state != 0 }

func (i *item) set(state int64) { i.at |= state }

func (i *item) timestamp() int64 { return i.at >> stateBits }

// add adds an entry. A timestamp that no destination can express becomes the nearest one
// that it can.
func (x *index) add(id string, timestamp int64, state int64) {
	h := x.hash(id)
	b := &x.buckets[h>>56]
	*b = append(*b, item{h, min(max(timestamp, audit.MinEventTime), audit.MaxEventTime)<<stateBits | state})
	x.sorted = false
}

// sort prepares the index for look-ups. An entry that was added twice, since Kong has shown
// its row twice, is kept once.
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

// find returns the entry with an id, or nil if there is none.
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

// spans divides the time between two seconds into parts of about n entries each. The entries
// of one second are never divided. If n is 0, there is one part.
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
