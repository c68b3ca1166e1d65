package cloudtrailtest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail/types"
	"github.com/aws/smithy-go"
)

// queryClient is the SDK's own client of the query side.
func queryClient(base, secret string) *cloudtrail.Client {
	return cloudtrail.New(cloudtrail.Options{
		Region: "eu-central-1", BaseEndpoint: aws.String(base), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(AccessKeyID, secret, ""),
	})
}

// ask runs a query to its end and returns all its rows.
func ask(ctx context.Context, c *cloudtrail.Client, sql string, size int32) (rows [][]map[string]string, statuses []types.QueryStatus, pages int, err error) {
	q, err := c.StartQuery(ctx, &cloudtrail.StartQueryInput{QueryStatement: &sql})
	if err != nil {
		return nil, nil, 0, err
	}
	for {
		d, err := c.DescribeQuery(ctx, &cloudtrail.DescribeQueryInput{QueryId: q.QueryId})
		if err != nil {
			return nil, statuses, 0, err
		}
		statuses = append(statuses, d.QueryStatus)
		if d.QueryStatus == types.QueryStatusFinished {
			break
		}
	}
	in := &cloudtrail.GetQueryResultsInput{QueryId: q.QueryId, MaxQueryResults: &size}
	for {
		out, err := c.GetQueryResults(ctx, in)
		if err != nil {
			return rows, statuses, pages, err
		}
		rows, pages = append(rows, out.QueryResultRows...), pages+1
		if out.NextToken == nil {
			return rows, statuses, pages, nil
		}
		in.NextToken = out.NextToken
	}
}

// withRows is a server that holds ten events, the fourth of them twice.
func withRows(t *testing.T, o Options) *Server {
	t.Helper()
	s := New(o)
	s.o.Unsigned = true
	var events []wireEvent
	for i := range 10 {
		source := "kong-gateway"
		if i == 9 {
			source = "elsewhere"
		}
		id := fmt.Sprintf("id-%d", i)
		events = append(events, wireEvent{ID: id, Data: goodData(id, set("eventSource", source), set("eventTime", fmt.Sprintf("2026-01-02T03:04:%02dZ", i/2)))})
	}
	put(t, s, toChannel, bodyOf(events...))
	put(t, s, toChannel, bodyOf(events[3]))
	s.o.Unsigned = o.Unsigned
	return s
}

func TestQueryWithSDK(t *testing.T) {
	s := withRows(t, Options{Keep: KeepDigests})
	c := queryClient(running(t, s).URL, SecretAccessKey)
	sql := "SELECT eventData.UID FROM " + EventDataStore + " WHERE eventData.eventSource = 'kong-gateway' " +
		"AND eventData.eventTime >= '2026-01-02 03:04:01' AND eventData.eventTime < '2026-01-02 03:04:05' ORDER BY eventData.UID"
	rows, statuses, pages, err := ask(t.Context(), c, sql, 3)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rows {
		got = append(got, r[0]["UID"])
	}
	if want := []string{"id-2", "id-3", "id-3", "id-4", "id-5", "id-6", "id-7", "id-8"}; !reflect.DeepEqual(got, want) || pages != 3 {
		t.Errorf("got %v in %d pages", got, pages)
	}
	if want := []types.QueryStatus{types.QueryStatusQueued, types.QueryStatusRunning, types.QueryStatusFinished}; !reflect.DeepEqual(statuses, want) {
		t.Errorf("statuses %v", statuses)
	}
	if !s.Remove("id-3") {
		t.Fatal("nothing to remove")
	}
	if rows, _, _, err := ask(t.Context(), c, sql, 1000); err != nil || len(rows) != 7 {
		t.Errorf("after a removal: %d rows, %v", len(rows), err)
	}
}

func TestQueryErrorsWithSDK(t *testing.T) {
	s := withRows(t, Options{})
	base := running(t, s).URL
	c := queryClient(base, SecretAccessKey)
	code := func(err error) string {
		var e smithy.APIError
		if !errors.As(err, &e) {
			return fmt.Sprint(err)
		}
		return e.ErrorCode()
	}
	from := " FROM " + EventDataStore
	start, err := c.StartQuery(t.Context(), &cloudtrail.StartQueryInput{QueryStatement: aws.String("SELECT eventData.UID" + from)})
	if err != nil {
		t.Fatal(err)
	}
	for want, call := range map[string]func() error{
		"InvalidQueryStatementException": func() error {
			_, err := c.StartQuery(t.Context(), &cloudtrail.StartQueryInput{QueryStatement: aws.String("SELECT *" + from)})
			return err
		},
		"EventDataStoreNotFoundException": func() error {
			_, err := c.StartQuery(t.Context(), &cloudtrail.StartQueryInput{QueryStatement: aws.String("SELECT eventID FROM aaaaaaaa-bbbb")})
			return err
		},
		"QueryIdNotFoundException": func() error {
			_, err := c.DescribeQuery(t.Context(), &cloudtrail.DescribeQueryInput{QueryId: aws.String(EventDataStore)})
			return err
		},
		"ValidationException": func() error {
			_, err := c.GetQueryResults(t.Context(), &cloudtrail.GetQueryResultsInput{QueryId: aws.String("x")})
			return err
		},
		"InvalidMaxResultsException": func() error {
			_, err := c.GetQueryResults(t.Context(), &cloudtrail.GetQueryResultsInput{QueryId: start.QueryId, MaxQueryResults: aws.Int32(1001)})
			return err
		},
		"InvalidNextTokenException": func() error {
			var err error
			for range 3 { // not before it has finished
				_, err = c.GetQueryResults(t.Context(), &cloudtrail.GetQueryResultsInput{QueryId: start.QueryId, NextToken: aws.String("5")})
			}
			return err
		},
		"InvalidSignatureException": func() error {
			_, err := queryClient(base, "other").DescribeQuery(t.Context(), &cloudtrail.DescribeQueryInput{QueryId: start.QueryId})
			return err
		},
		"UnknownOperationException": func() error {
			_, err := c.ListChannels(t.Context(), &cloudtrail.ListChannelsInput{})
			return err
		},
	} {
		if got := code(call()); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestSelect(t *testing.T) {
	s := withRows(t, Options{Unsigned: true})
	for sql, want := range map[string]string{
		"SELECT COUNT(*) FROM S":            "[[11]]",
		"select count ( * ) as n from S":    "[[11]]",
		"SELECT eventData.UID FROM S":       "[[id-0] [id-1] [id-2] [id-3] [id-4] [id-5] [id-6] [id-7] [id-8] [id-9] [id-3]]",
		"SELECT eventdata.uid FROM S WHERE": "",
		"SELECT eventData.UID FROM S WHERE eventData.UID > 'id-3' ORDER BY UID DESC LIMIT 2":                                                         "[[id-9] [id-8]]",
		"SELECT eventData.UID, COUNT(*) AS n FROM S GROUP BY eventData.UID HAVING COUNT(*) > 1":                                                      "[[id-3 2]]",
		"SELECT eventData.UID, COUNT(*) AS n FROM S GROUP BY eventData.UID ORDER BY n DESC, eventData.UID ASC LIMIT 2":                               "[[id-3 2] [id-0 1]]",
		"SELECT eventData.eventSource, COUNT(*) FROM S GROUP BY eventData.eventSource ORDER BY COUNT(*)":                                             "[[elsewhere 1] [kong-gateway 10]]",
		"SELECT eventData.UID, eventData.eventTime FROM S WHERE eventData.eventTime = '2026-01-02 03:04:04' ORDER BY UID LIMIT 1":                    "[[id-8 2026-01-02 03:04:04.000]]",
		"SELECT eventData.UID FROM S WHERE eventData.UID IN ('id-1', 'id-5', 'it''s')":                                                               "[[id-1] [id-5]]",
		"SELECT eventData.UID FROM S WHERE eventData.eventSource != 'kong-gateway' AND eventData.eventSource <> 'x'":                                 "[[id-9]]",
		"SELECT COUNT(*) FROM S WHERE eventData.UID <= 'id-0' AND eventData.eventTime > '2025-12-31 00:00:00'":                                       "[[1]]",
		"SELECT eventData.eventSource, eventData.eventTime, COUNT(*) FROM S GROUP BY eventData.eventSource, eventData.eventTime HAVING COUNT(*) = 3": "[[kong-gateway 2026-01-02 03:04:01.000 3]]",
		"SELECT eventData.UID FROM S LIMIT 0": "[]",
	} {
		st, err := parseSQL(strings.Replace(sql, " S", " "+EventDataStore, 1))
		if want == "" {
			if err == nil {
				t.Errorf("%s: taken", sql)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			continue
		}
		rows, scanned, _ := s.store.run(st)
		if got := fmt.Sprint(rows); got != want || scanned != 11 {
			t.Errorf("%s:\n got %s\nwant %s", sql, got, want)
		}
	}
}

func TestSQLRefused(t *testing.T) {
	for _, sql := range []string{
		"", "SELECT", "SELECT * FROM S", "SELECT eventData.UID", "SELECT eventData.UID FROM", "SELECT eventData.UID FROM S;",
		"SELECT eventData.UID, FROM S", "SELECT eventData.eventName FROM S", "SELECT DISTINCT eventData.UID FROM S",
		"SELECT eventData.UID FROM S WHERE eventData.UID = id", "SELECT eventData.UID FROM S WHERE eventData.UID = 'a",
		"SELECT eventData.UID FROM S WHERE eventData.UID = 'a' OR eventData.UID = 'b'", "SELECT eventData.UID FROM S WHERE eventData.UID LIKE 'a'",
		"SELECT eventData.UID FROM S WHERE eventData.eventTime > '2026-01-02'", "SELECT eventData.UID FROM S WHERE eventData.eventTime > '2026-01-02T00:00:00Z'",
		"SELECT eventData.UID FROM S WHERE eventData.eventTime > '2026-02-30 00:00:00'", "SELECT eventData.UID FROM S WHERE eventData.eventTime > '2026-01-02 00:00:00.5'",
		"SELECT eventData.UID FROM S WHERE eventData.eventTime IN ('2026-01-02 00:00:00')", "SELECT eventData.UID FROM S WHERE COUNT(*) > 1",
		"SELECT eventData.UID FROM S WHERE eventData.UID IN ()", "SELECT eventData.UID FROM S LIMIT -1", "SELECT eventData.UID FROM S LIMIT many",
		"SELECT eventData.UID, COUNT(*) FROM S", "SELECT eventData.UID FROM S GROUP BY eventData.eventSource", "SELECT eventData.UID FROM S HAVING COUNT(*) > 1",
		"SELECT eventData.UID FROM S ORDER BY COUNT(*)", "SELECT eventData.UID FROM S GROUP BY eventData.UID ORDER BY eventData.eventTime",
		"SELECT eventData.UID FROM S GROUP BY eventData.UID HAVING eventData.eventTime > '2026-01-02 00:00:00'",
		"SELECT COUNT(eventData.UID) FROM S", "DROP TABLE S", "SELECT eventData.UID FROM S ORDER BY", "SELECT eventData.UID FROM 'S'",
	} {
		if _, err := parseSQL(sql); err == nil {
			t.Errorf("taken: %s", sql)
		}
	}
}

func TestCountsKeepNothingToQuery(t *testing.T) {
	s := withRows(t, Options{Unsigned: true, Keep: KeepCounts})
	st, err := parseSQL("SELECT COUNT(*) FROM " + EventDataStore)
	if err != nil {
		t.Fatal(err)
	}
	if rows, _, _ := s.store.run(st); rows[0][0] != "0" {
		t.Errorf("got %v", rows)
	}
}

func FuzzSQL(f *testing.F) {
	f.Add("SELECT eventData.UID FROM S WHERE eventData.eventSource = 'kong-gateway' AND eventData.eventTime >= '2026-01-01 00:00:00' ORDER BY eventData.UID LIMIT 5")
	f.Add("SELECT eventData.UID u, COUNT(*) AS n FROM a-b GROUP BY eventData.UID HAVING COUNT(*)>1 ORDER BY n DESC")
	f.Add("SELECT eventID FROM S WHERE eventData.UID IN ('a','it''s')")
	t := newStore(KeepEvents, 1)
	t.add([]accepted{{id: "a", columns: columns{"a", "kong-gateway", 1}}, {id: "b", columns: columns{"b", "x", 2}}}, time.Unix(3, 0))
	f.Fuzz(func(tt *testing.T, sql string) {
		st, err := parseSQL(sql)
		if err != nil {
			return
		}
		rows, scanned, matched := t.run(st)
		if scanned != 2 || matched > 2 || len(rows) > 2 {
			tt.Errorf("%d rows, %d scanned, %d matched", len(rows), scanned, matched)
		}
		for _, r := range rows {
			if len(r) != len(st.items) {
				tt.Errorf("row %v for %d items", r, len(st.items))
			}
		}
	})
}
