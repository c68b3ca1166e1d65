package cloudtrailtest

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kong-cloudtrail/relay/internal/awstest"
)

// The queries of CloudTrail Lake, as AWS's model of the cloudtrail service has them (JSON
// 1.1): StartQuery, DescribeQuery, GetQueryResults. They see what was kept of the events,
// which with Lean is nothing.

const (
	maxResults   = 1000   // rows in a page: the default and the maximum
	maxStatement = 10_000 // bytes of a statement
)

var queryIDPattern = regexp.MustCompile(`^[a-f0-9-]{36}$`)

type queryRun struct {
	id, sql          string
	rows             [][]string
	scanned, matched int
	created          time.Time
	looks            int // how often its status was asked for
}

// status returns the query's status, which goes a step further with each call.
func (q *queryRun) status() string {
	q.looks++
	return []string{"QUEUED", "RUNNING", "FINISHED"}[min(q.looks, 3)-1]
}

func (s *Server) query(w http.ResponseWriter, r *http.Request) {
	body, done, e := s.read(r, "cloudtrail")
	defer done()
	var out any
	if e == nil {
		out, e = s.operation(r.Header.Get("X-Amz-Target"), body)
	}
	if e != nil {
		s.Fail(w, queryProtocol, e)
		return
	}
	queryProtocol.Write(w, http.StatusOK, out)
}

func (s *Server) operation(target string, body []byte) (map[string]any, *awstest.Error) {
	in := struct {
		QueryStatement  string
		QueryID         string `json:"QueryId"`
		NextToken       string
		MaxQueryResults int
	}{MaxQueryResults: maxResults}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, awstest.Refuse("SerializationException", "the body is not a JSON object of the expected form")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch target {
	case "CloudTrail_20131101.StartQuery":
		return s.startQuery(in.QueryStatement)
	case "CloudTrail_20131101.DescribeQuery":
		q, status, e := s.look(in.QueryID)
		if e != nil {
			return nil, e
		}
		statistics := map[string]any{"CreationTime": float64(q.created.UnixMilli()) / 1000}
		if status == "FINISHED" {
			statistics["EventsMatched"], statistics["EventsScanned"] = q.matched, q.scanned
			statistics["BytesScanned"], statistics["ExecutionTimeInMillis"] = 0, 1
		}
		return map[string]any{"QueryId": q.id, "QueryString": q.sql, "QueryStatus": status, "QueryStatistics": statistics}, nil
	case "CloudTrail_20131101.GetQueryResults":
		if in.MaxQueryResults < 1 || in.MaxQueryResults > maxResults {
			return nil, awstest.Refuse("InvalidMaxResultsException", "The limit is not between 1 and 1000.")
		}
		q, status, e := s.look(in.QueryID)
		if e != nil || status != "FINISHED" {
			return map[string]any{"QueryStatus": status}, e
		}
		return q.page(in.NextToken, in.MaxQueryResults)
	}
	return nil, awstest.Refuse("UnknownOperationException", "there is no such operation")
}

func (s *Server) startQuery(sql string) (map[string]any, *awstest.Error) {
	if sql == "" || len(sql) > maxStatement {
		return nil, invalid("Value at 'queryStatement' failed to satisfy constraint: Member must have length between 1 and 10000")
	}
	st, err := parseSQL(sql)
	if err != nil {
		return nil, awstest.Refuse("InvalidQueryStatementException", "The query statement is not valid: "+err.Error())
	}
	if st.store != EventDataStore {
		return nil, awstest.Refuse("EventDataStoreNotFoundException", "The specified event data store was not found.")
	}
	q := &queryRun{sql: sql, created: s.o.Now(), id: fmt.Sprintf("%08x-0000-4000-9000-%012x", s.boot, len(s.queries))}
	q.rows, q.scanned, q.matched = s.run(st)
	s.queries[q.id] = q
	return map[string]any{"QueryId": q.id}, nil
}

// look finds a query and returns its status.
func (s *Server) look(id string) (*queryRun, string, *awstest.Error) {
	if !queryIDPattern.MatchString(id) {
		return nil, "", invalid("Value at 'queryId' failed to satisfy constraint: Member must satisfy regular expression pattern: ^[a-f0-9\\-]{36}$")
	}
	q, ok := s.queries[id]
	if !ok {
		return nil, "", awstest.Refuse("QueryIdNotFoundException", "The query ID does not exist or does not map to a query.")
	}
	return q, q.status(), nil
}

// page returns the page of rows that begins at a token, which is empty for the first page.
func (q *queryRun) page(token string, size int) (map[string]any, *awstest.Error) {
	start := 0
	if token != "" {
		place, ok := strings.CutPrefix(token, q.id+".")
		n, err := strconv.Atoi(place)
		if !ok || err != nil || n < 1 || n >= len(q.rows) {
			return nil, awstest.Refuse("InvalidNextTokenException", "The token is not valid, or is not one of this query.")
		}
		start = n
	}
	page := q.rows[start:min(start+size, len(q.rows))]
	rows := make([][]map[string]string, len(page))
	for i, row := range page {
		rows[i] = []map[string]string{{"uid": row[0]}, {"at": row[1]}, {"times": row[2]}}
	}
	out := map[string]any{
		"QueryStatus": "FINISHED", "QueryResultRows": rows,
		"QueryStatistics": map[string]any{"ResultsCount": len(page), "TotalResultsCount": len(q.rows), "BytesScanned": 0},
	}
	if end := start + len(page); end < len(q.rows) {
		out["NextToken"] = q.id + "." + strconv.Itoa(end)
	}
	return out, nil
}
