package cloudtrailtest

import (
	"cmp"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/kong-cloudtrail/relay/internal/awstest"
)

// statementPattern matches the only statement that the server understands, that of a
// verification: how often each event of a source was accepted, between two times.
var statementPattern = regexp.MustCompile(`^SELECT eventData\.UID AS uid, eventData\.eventTime AS at, COUNT\(\*\) AS times FROM ([0-9A-Za-z-]+) ` +
	`WHERE eventData\.eventSource = '([^']*)' AND eventData\.eventTime >= '([^']*)' AND eventData\.eventTime < '([^']*)' ` +
	`GROUP BY eventData\.UID, eventData\.eventTime$`)

const sqlTime = "2006-01-02 15:04:05"

// statement is a query that was understood.
type statement struct {
	store, source string
	since, until  int64 // Unix seconds, until excluded
}

func parseSQL(sql string) (statement, error) {
	m := statementPattern.FindStringSubmatch(sql)
	if m == nil {
		return statement{}, errors.New("only this is understood: " + statementPattern.String())
	}
	since, err1 := time.Parse(sqlTime, m[3])
	until, err2 := time.Parse(sqlTime, m[4])
	if err := cmp.Or(err1, err2); err != nil || len(m[3]) != len(sqlTime) || len(m[4]) != len(sqlTime) {
		return statement{}, errors.New("a time has the form " + sqlTime)
	}
	return statement{store: m[1], source: m[2], since: since.Unix(), until: until.Unix()}, nil
}

// run answers a statement with rows of cells, ordered by time and UID.
func (s *Server) run(st statement) (rows [][]string, scanned, matched int) {
	type group struct {
		uid string
		at  int64
	}
	times := map[group]int{}
	s.View(func(events []awstest.Event) {
		for i := range events {
			e := &events[i]
			if e.Removed {
				continue
			}
			scanned++
			if at := e.At.Unix(); e.Place == st.source && at >= st.since && at < st.until {
				matched++
				times[group{e.UID, at}]++
			}
		}
	})
	for _, g := range slices.SortedFunc(maps.Keys(times), func(a, b group) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.uid, b.uid))
	}) {
		rows = append(rows, []string{g.uid, time.Unix(g.at, 0).UTC().Format(sqlTime + ".000"), strconv.Itoa(times[g])})
	}
	return rows, scanned, matched
}
