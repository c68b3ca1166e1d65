package cloudtrailtest

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// record is a row as a query sees it, or a group of rows.
type record struct {
	seq    int
	uid    string
	source string
	time   int64
	count  int64
}

// run answers a statement with the values of its items, row by row.
func (t *store) run(st *statement) (rows [][]string, scanned, matched int) {
	records, scanned := t.match(st.where)
	matched = len(records)
	aggregate := len(st.group) > 0 || len(st.having) > 0 ||
		slices.ContainsFunc(st.items, func(i item) bool { return i.column == colCount })
	if aggregate {
		records = t.aggregate(records, st.group)
		records = slices.DeleteFunc(records, func(r record) bool {
			return slices.ContainsFunc(st.having, func(c condition) bool { return !t.holds(&r, c) })
		})
	}
	if len(st.order) > 0 {
		slices.SortStableFunc(records, func(a, b record) int {
			for _, o := range st.order {
				if c := t.compare(&a, &b, o.column); c != 0 {
					if o.descending {
						return -c
					}
					return c
				}
			}
			return 0
		})
	}
	if st.limit >= 0 && len(records) > st.limit {
		records = records[:st.limit]
	}
	rows = make([][]string, len(records))
	cells := make([]string, len(records)*len(st.items))
	for i := range records {
		rows[i], cells = cells[:len(st.items):len(st.items)], cells[len(st.items):]
		for j, it := range st.items {
			rows[i][j] = t.cell(&records[i], it.column)
		}
	}
	return rows, scanned, matched
}

func (t *store) match(where []condition) (out []record, scanned int) {
	t.mu.Lock()
	defer t.mu.Unlock()
rows:
	for i := range t.rows {
		row := &t.rows[i]
		if row.removed {
			continue
		}
		scanned++
		r := record{seq: i + 1, uid: row.uid, source: row.source, time: row.time, count: 1}
		for _, c := range where {
			if !t.holds(&r, c) {
				continue rows
			}
		}
		out = append(out, r)
	}
	return out, scanned
}

// aggregate makes one record of each group, in the order in which they first appear.
func (t *store) aggregate(records []record, group []column) []record {
	if len(group) == 0 {
		return []record{{count: int64(len(records))}}
	}
	var out []record
	places := map[string]int{}
	var key strings.Builder
	for i := range records {
		k := t.cell(&records[i], group[0])
		if len(group) > 1 {
			key.Reset()
			for _, c := range group {
				v := t.cell(&records[i], c)
				key.WriteString(strconv.Itoa(len(v)) + ":" + v)
			}
			k = key.String()
		}
		if place, ok := places[k]; ok {
			out[place].count++
			continue
		}
		places[k] = len(out)
		out = append(out, records[i])
	}
	return out
}

func (t *store) holds(r *record, c condition) bool {
	var order int
	switch c.column {
	case colTime:
		order = cmp.Compare(r.time, c.number)
	case colCount:
		order = cmp.Compare(r.count, c.number)
	default:
		v := t.cell(r, c.column)
		if c.op == "IN" {
			return slices.Contains(c.values, v)
		}
		order = strings.Compare(v, c.values[0])
	}
	switch c.op {
	case "=":
		return order == 0
	case "<>":
		return order != 0
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	}
	return order >= 0
}

func (t *store) compare(a, b *record, c column) int {
	switch c {
	case colTime:
		return cmp.Compare(a.time, b.time)
	case colCount:
		return cmp.Compare(a.count, b.count)
	}
	return strings.Compare(t.cell(a, c), t.cell(b, c))
}

// cell is a value as a result shows it.
func (t *store) cell(r *record, c column) string {
	switch c {
	case colUID:
		return r.uid
	case colSource:
		return r.source
	case colTime:
		return time.Unix(r.time, 0).UTC().Format(sqlTime + ".000")
	case colEventID:
		return t.eventID(r.seq)
	}
	return strconv.FormatInt(r.count, 10)
}
