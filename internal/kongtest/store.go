package kongtest

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"sort"
	"strconv"
)

// store holds rows, encoded, and keeps them sorted in two ways. Nothing in it is
// a pointer for each row, so that a million of them cost the collector nothing.
// It is not safe for concurrent use; what page returns stays valid for ever,
// because the bytes of a row are never moved or freed.
type store struct {
	rows   []record // by row number; deleted ones too: the log of all that was ever held
	chunks [][]byte
	common []string // parts that rows share
	known  map[string]uint32
	byTime []uint32 // row numbers by timestamp, id, number; may hold deleted ones
	byID   []uint32 // row numbers by id, number; made when it is first needed
	inByID int      // how many rows byID knows
	dead   int      // deleted rows in the indexes
	live   int
	parts  parts
}

type record struct {
	timestamp int64
	expires   uint32 // Unix seconds
	chunk     uint32
	offset    uint32
	own       uint32 // bytes of the row's own part, after its id
	common    uint32
	id        uint16 // bytes
	flags     uint8
}

const (
	flagDead uint8 = 1 << iota
	flagNoID
	flagNoTime
	flagNoTTL
)

const (
	chunkSize = 1 << 20
	maxCommon = 1 << 16 // parts kept apart: beyond that, sharing is unlikely to pay
)

// add appends a row; index must be called before the next read.
func (s *store) add(row *Row, expires int64, omit []string) {
	p := &s.parts
	p.encode(row, omit)
	var common uint32
	if c, ok := s.known[string(p.common)]; ok {
		common = c
	} else if len(s.common) < maxCommon {
		if s.known == nil {
			s.known = map[string]uint32{}
			s.common = append(s.common, "")
		}
		common = uint32(len(s.common))
		text := string(p.common)
		s.common = append(s.common, text)
		s.known[text] = common
	} else {
		p.own = append(p.own, p.common...)
	}
	id := row.RequestID
	if len(id) > math.MaxUint16 {
		id = id[:math.MaxUint16]
	}
	r := record{
		timestamp: row.RequestTimestamp,
		expires:   uint32(min(max(expires, 0), math.MaxUint32)),
		own:       uint32(len(p.own)),
		common:    common,
		id:        uint16(len(id)),
	}
	r.chunk, r.offset = s.keep(id, p.own)
	for _, f := range []struct {
		set  bool
		flag uint8
	}{{p.noID, flagNoID}, {p.noTime, flagNoTime}, {p.noLT, flagNoTTL}} {
		if f.set {
			r.flags |= f.flag
		}
	}
	s.rows = append(s.rows, r)
	s.live++
	if cap(p.own) > chunkSize {
		p.own = nil
	}
}

// keep stores the bytes of a row and says where.
func (s *store) keep(id string, own []byte) (chunk, offset uint32) {
	n := len(id) + len(own)
	last := len(s.chunks) - 1
	if last < 0 || cap(s.chunks[last])-len(s.chunks[last]) < n {
		s.chunks = append(s.chunks, make([]byte, 0, max(chunkSize, n)))
		last++
	}
	at := len(s.chunks[last])
	s.chunks[last] = append(append(s.chunks[last], id...), own...)
	return uint32(last), uint32(at)
}

// index takes the rows from number first on into the order by time.
func (s *store) index(first int) {
	s.byTime = insert(s.byTime, first, len(s.rows), s.compareTime)
}

func (s *store) needByID() {
	s.byID = insert(s.byID, s.inByID, len(s.rows), s.compareID)
	s.inByID = len(s.rows)
}

// insert puts the numbers first to end-1 into a sorted index.
func insert(index []uint32, first, end int, compare func(a, b uint32) int) []uint32 {
	batch := make([]uint32, 0, end-first)
	for n := first; n < end; n++ {
		batch = append(batch, uint32(n))
	}
	if len(batch) == 0 {
		return index
	}
	slices.SortFunc(batch, compare)
	if len(index) == 0 || compare(index[len(index)-1], batch[0]) < 0 {
		return append(index, batch...)
	}
	if len(batch) <= 16 {
		for _, n := range batch {
			at, _ := slices.BinarySearchFunc(index, n, compare)
			index = slices.Insert(index, at, n)
		}
		return index
	}
	// Merge from the end, in place.
	i, j := len(index)-1, len(batch)-1
	index = append(index, batch...)
	for k := len(index) - 1; j >= 0; k-- {
		if i >= 0 && compare(index[i], batch[j]) > 0 {
			index[k] = index[i]
			i--
		} else {
			index[k] = batch[j]
			j--
		}
	}
	return index
}

func (s *store) id(r *record) []byte {
	return s.chunks[r.chunk][r.offset : r.offset+uint32(r.id)]
}

func (s *store) compareTime(a, b uint32) int {
	ra, rb := &s.rows[a], &s.rows[b]
	if ra.timestamp != rb.timestamp {
		return cmp.Compare(ra.timestamp, rb.timestamp)
	}
	return s.compareID(a, b)
}

func (s *store) compareID(a, b uint32) int {
	if c := bytes.Compare(s.id(&s.rows[a]), s.id(&s.rows[b])); c != 0 {
		return c
	}
	return cmp.Compare(a, b)
}

// deleteID deletes the rows with this id and returns how many there were.
func (s *store) deleteID(id string) int {
	s.needByID()
	count := 0
	at := sort.Search(len(s.byID), func(i int) bool { return string(s.id(&s.rows[s.byID[i]])) >= id })
	for ; at < len(s.byID) && string(s.id(&s.rows[s.byID[at]])) == id; at++ {
		if s.kill(s.byID[at]) {
			count++
		}
	}
	s.compact()
	return count
}

// deleteBefore deletes the rows with a timestamp before t.
func (s *store) deleteBefore(t int64) int {
	count := 0
	for _, n := range s.byTime {
		if s.rows[n].timestamp >= t {
			break
		}
		if s.kill(n) {
			count++
		}
	}
	s.compact()
	return count
}

func (s *store) kill(n uint32) bool {
	r := &s.rows[n]
	if r.flags&flagDead != 0 {
		return false
	}
	r.flags |= flagDead
	s.live--
	s.dead++
	return true
}

// compact takes deleted rows out of the indexes once they are a fair share.
func (s *store) compact() {
	if s.dead < 1024 || s.dead < len(s.byTime)/4 {
		return
	}
	gone := func(n uint32) bool { return s.rows[n].flags&flagDead != 0 }
	s.byTime = slices.DeleteFunc(s.byTime, gone)
	s.byID = slices.DeleteFunc(s.byID, gone)
	s.dead = 0
}

// selection says which rows a page shows, and in which order.
type selection struct {
	order    Order
	oldest   bool  // Filtered only: oldest first
	from, to int64 // Filtered only: timestamps, both inclusive
	size     int
	after    *key  // go on after this one, or
	skip     int64 // leave out so many
	now      int64 // rows that have expired by then are not shown
}

// key is what an offset holds: where a row stands in either order.
type key struct {
	timestamp int64
	id        []byte
	number    uint32
}

func (s *store) key(n uint32) key {
	r := &s.rows[n]
	return key{r.timestamp, s.id(r), n}
}

func (s *store) compareKey(n uint32, k *key, order Order) int {
	r := &s.rows[n]
	if order != Unordered && r.timestamp != k.timestamp {
		return cmp.Compare(r.timestamp, k.timestamp)
	}
	if c := bytes.Compare(s.id(r), k.id); c != 0 {
		return c
	}
	return cmp.Compare(n, k.number)
}

// line is a row that a page shows.
type line struct {
	record
	id     []byte
	common string
	own    []byte
}

// page appends the rows that q selects to dst. last is the key of the last of
// them, and more says whether others follow.
func (s *store) page(dst []line, q selection) (lines []line, last key, more bool) {
	index := s.byTime
	if q.order == Unordered {
		s.needByID()
		index = s.byID
	}
	lo, hi := 0, len(index) // candidates
	if q.order == Filtered {
		lo = sort.Search(len(index), func(i int) bool { return s.rows[index[i]].timestamp >= q.from })
		hi = sort.Search(len(index), func(i int) bool { return s.rows[index[i]].timestamp > q.to })
	}
	forward := q.order == Unordered || q.oldest
	if q.after != nil {
		if forward {
			lo = max(lo, sort.Search(len(index), func(i int) bool { return s.compareKey(index[i], q.after, q.order) > 0 }))
		} else {
			hi = min(hi, sort.Search(len(index), func(i int) bool { return s.compareKey(index[i], q.after, q.order) >= 0 }))
		}
	}
	var lastNumber uint32
	for skip, count := q.skip, 0; lo < hi; {
		var n uint32
		if forward {
			n = index[lo]
			lo++
		} else {
			hi--
			n = index[hi]
		}
		r := &s.rows[n]
		if r.flags&flagDead != 0 || int64(r.expires) <= q.now {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		if count == q.size {
			return dst, s.key(lastNumber), true
		}
		dst = append(dst, s.line(r))
		lastNumber = n
		count++
	}
	return dst, key{}, false
}

func (s *store) line(r *record) line {
	b := s.chunks[r.chunk][r.offset:]
	l := line{record: *r, id: b[:r.id:r.id], own: b[r.id : uint32(r.id)+r.own]}
	if r.common != 0 {
		l.common = s.common[r.common]
	}
	return l
}

// shown says which fields a release has.
type shown struct{ ttl, time bool }

// appendHead appends the beginning of a row, up to what the store holds of it:
// its common part and its own, each of which begins with a comma.
func (l *line) appendHead(dst []byte, now int64, fields shown) []byte {
	start := len(dst)
	if l.flags&flagNoID == 0 {
		dst = appendString(append(dst, `,"request_id":`...), l.id)
	}
	if l.flags&flagNoTime == 0 && fields.time {
		dst = strconv.AppendInt(append(dst, `,"request_timestamp":`...), l.timestamp, 10)
	}
	if l.flags&flagNoTTL == 0 && fields.ttl {
		dst = strconv.AppendInt(append(dst, `,"ttl":`...), int64(l.expires)-now, 10)
	}
	if len(dst) > start {
		dst[start] = '{'
		return dst
	}
	dst = append(dst, '{')
	if l.common != "" {
		l.common = l.common[1:]
	} else if len(l.own) > 0 {
		l.own = l.own[1:]
	}
	return dst
}
