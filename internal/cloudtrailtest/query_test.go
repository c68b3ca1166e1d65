package cloudtrailtest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

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

// statementOf is the statement that is understood.
func statementOf(store, source, since, until string) string {
	return "SELECT eventData.UID AS uid, eventData.eventTime AS at, COUNT(*) AS times FROM " + store +
		" WHERE eventData.eventSource = '" + source + "' AND eventData.eventTime >= '" + since + "' AND eventData.eventTime < '" + until +
		"' GROUP BY eventData.UID, eventData.eventTime"
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
	s := withRows(t, Options{Digest: true})
	c := queryClient(running(t, s), SecretAccessKey)
	sql := statementOf(EventDataStore, "kong-gateway", "2026-01-02 03:04:01", "2026-01-02 03:04:05")
	rows, statuses, pages, err := ask(t.Context(), c, sql, 3)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rows {
		got = append(got, r[0]["uid"]+" "+r[2]["times"])
	}
	if want := []string{"id-2 1", "id-3 2", "id-4 1", "id-5 1", "id-6 1", "id-7 1", "id-8 1"}; !reflect.DeepEqual(got, want) || pages != 3 {
		t.Errorf("got %v in %d pages", got, pages)
	}
	if at := rows[0][1]["at"]; at != "2026-01-02 03:04:01.000" {
		t.Errorf("time %q", at)
	}
	if want := []types.QueryStatus{types.QueryStatusQueued, types.QueryStatusRunning, types.QueryStatusFinished}; !reflect.DeepEqual(statuses, want) {
		t.Errorf("statuses %v", statuses)
	}
	if !s.Remove("id-3") {
		t.Fatal("nothing to remove")
	}
	if rows, _, _, err := ask(t.Context(), c, sql, 1000); err != nil || len(rows) != 7 || rows[1][2]["times"] != "1" {
		t.Errorf("after a removal: %v, %v", rows, err)
	}
}

func TestQueryErrorsWithSDK(t *testing.T) {
	s := withRows(t, Options{})
	base := running(t, s)
	c := queryClient(base, SecretAccessKey)
	code := func(err error) string {
		var e smithy.APIError
		if !errors.As(err, &e) {
			return fmt.Sprint(err)
		}
		return e.ErrorCode()
	}
	const from, to = "2026-01-01 00:00:00", "2027-01-01 00:00:00"
	start, err := c.StartQuery(t.Context(), &cloudtrail.StartQueryInput{QueryStatement: aws.String(statementOf(EventDataStore, "kong-gateway", from, to))})
	if err != nil {
		t.Fatal(err)
	}
	for want, call := range map[string]func() error{
		"InvalidQueryStatementException": func() error {
			_, err := c.StartQuery(t.Context(), &cloudtrail.StartQueryInput{QueryStatement: aws.String("SELECT * FROM " + EventDataStore)})
			return err
		},
		"EventDataStoreNotFoundException": func() error {
			_, err := c.StartQuery(t.Context(), &cloudtrail.StartQueryInput{QueryStatement: aws.String(statementOf("aaaaaaaa-bbbb", "kong-gateway", from, to))})
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
				_, err = c.GetQueryResults(t.Context(), &cloudtrail.GetQueryResultsInput{QueryId: start.QueryId, NextToken: aws.String("50")})
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

func TestSQLRefused(t *testing.T) {
	const from, to = "2026-01-01 00:00:00", "2027-01-01 00:00:00"
	good := statementOf("S", "kong-gateway", from, to)
	if _, err := parseSQL(good); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"", "DROP TABLE S", "SELECT * FROM S", good + ";", good + " LIMIT 1", " " + good, strings.ToLower(good),
		strings.Replace(good, "uid, ", "u, ", 1), statementOf("S", "it's", from, to),
		statementOf("S", "x", "2026-01-02", to), statementOf("S", "x", "2026-02-30 00:00:00", to), statementOf("S", "x", from, "2026-01-02 00:00:00.5"),
	} {
		if _, err := parseSQL(sql); err == nil {
			t.Errorf("understood: %s", sql)
		}
	}
}

func TestLeanKeepsNothingToQuery(t *testing.T) {
	s := withRows(t, Options{Unsigned: true, Lean: true})
	st, err := parseSQL(statementOf(EventDataStore, "kong-gateway", "2026-01-01 00:00:00", "2027-01-01 00:00:00"))
	if err != nil {
		t.Fatal(err)
	}
	if rows, _, _ := s.run(st); len(rows) != 0 {
		t.Errorf("got %v", rows)
	}
}
