// Package lake asks CloudTrail Lake by SQL which events it holds, so that what
// was delivered can be compared with what was recorded.
//
// Events can be queried some minutes after PutAuditEvents accepted them, not at
// once. A query is billed by the bytes that it scans, which the bounds on the
// time of events keep down.
package lake

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail/types"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/awscall"
)

const (
	firstLook  = 50 * time.Millisecond // at a query's status, doubled each time
	lastLook   = 5 * time.Second
	pageSize   = 1000 // rows: the most that GetQueryResults gives
	attempts   = 8
	maxBackoff = 20 * time.Second
	timeFormat = "2006-01-02 15:04:05"

	eventSource = "kong-gateway" // of every event
)

// Lake is an event data store. It is safe for concurrent use.
type Lake struct {
	client *cloudtrail.Client
	caller *awscall.Caller
	store  string
}

var storeID = regexp.MustCompile(`^[0-9a-f-]{36}$`)

// New returns the event data store with an id, which is behind the channel. It contacts nothing.
// The endpoint is AWS_ENDPOINT_URL_CLOUDTRAIL's, then AWS_ENDPOINT_URL's, where they are set.
func New(cfg aws.Config, eventDataStore string) (*Lake, error) {
	if !storeID.MatchString(eventDataStore) { // it becomes a part of the queries
		return nil, fmt.Errorf("event data store %q: expected a UUID", eventDataStore)
	}
	caller, cfg := awscall.New(cfg, service)
	client := cloudtrail.NewFromConfig(cfg, func(c *cloudtrail.Options) {
		// An account may run a limited number of queries at once, some of them others'.
		c.Retryer = retry.AddWithErrorCodes(retry.NewStandard(func(s *retry.StandardOptions) {
			s.MaxAttempts, s.MaxBackoff = attempts, maxBackoff
		}), (*types.MaxConcurrentQueriesException)(nil).ErrorCode())
	})
	return &Lake{client: client, caller: caller, store: eventDataStore}, nil
}

// Events yields the events from since to until (excluded), Unix seconds, in no
// order, each once. It holds one page of them. It makes one query, waits for it, and retries
// what passes in a minute or so; an error ends it, a *[audit.SettingsError] where a
// person has to act.
func (l *Lake) Events(ctx context.Context, since, until int64) iter.Seq2[audit.StoredEvent, error] {
	return func(yield func(audit.StoredEvent, error) bool) {
		err := l.events(ctx, since, until, func(e audit.StoredEvent) bool { return yield(e, nil) })
		if err != nil {
			yield(audit.StoredEvent{}, l.explain(ctx, err))
		}
	}
}

func (l *Lake) events(ctx context.Context, since, until int64, yield func(audit.StoredEvent) bool) error {
	sql := "SELECT eventData.UID AS uid, eventData.eventTime AS at, COUNT(*) AS times FROM " + l.store +
		" WHERE eventData.eventSource = '" + eventSource + "' AND eventData.eventTime >= '" + stamp(since) +
		"' AND eventData.eventTime < '" + stamp(until) + "' GROUP BY eventData.UID, eventData.eventTime"
	query, err := l.client.StartQuery(ctx, &cloudtrail.StartQueryInput{QueryStatement: &sql})
	if err != nil {
		return err
	}
	if aws.ToString(query.QueryId) == "" {
		return l.caller.BadAnswer(awscall.ErrForeign).Err()
	}
	if err := l.await(ctx, query.QueryId); err != nil {
		return err
	}
	in := &cloudtrail.GetQueryResultsInput{QueryId: query.QueryId, MaxQueryResults: aws.Int32(pageSize)}
	given := map[string]bool{}
	for {
		out, err := l.client.GetQueryResults(ctx, in)
		if err != nil {
			return err
		}
		if out.QueryStatus != types.QueryStatusFinished { // DescribeQuery said otherwise
			return l.ended(out.QueryStatus, out.ErrorMessage)
		}
		for _, row := range out.QueryResultRows {
			e, err := decode(row)
			if err != nil {
				return err
			}
			if !yield(e) {
				return nil
			}
		}
		token := aws.ToString(out.NextToken)
		if token == "" {
			return nil
		}
		if given[token] {
			return errors.New("the same page was given twice")
		}
		given[token] = true
		in.NextToken = &token
	}
}

// await returns once a query has finished.
func (l *Lake) await(ctx context.Context, id *string) error {
	for wait := firstLook; ; wait = min(2*wait, lastLook) {
		out, err := l.client.DescribeQuery(ctx, &cloudtrail.DescribeQueryInput{QueryId: id})
		if err != nil {
			return err
		}
		switch out.QueryStatus {
		case types.QueryStatusFinished:
			return nil
		case types.QueryStatusQueued, types.QueryStatusRunning:
		default:
			return l.ended(out.QueryStatus, out.ErrorMessage)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// ended is the error of a query that gave no result.
func (l *Lake) ended(status types.QueryStatus, message *string) error {
	if status == "" {
		return l.caller.BadAnswer(awscall.ErrForeign).Err()
	}
	if text := awscall.Clean(aws.ToString(message)); text != "" {
		return fmt.Errorf("query ended with status %s: %s", status, text)
	}
	return fmt.Errorf("query ended with status %s", status)
}

// decode reads a row: a list of objects of one column each, by AWS's model.
func decode(row []map[string]string) (audit.StoredEvent, error) {
	cells := map[string]string{}
	for _, cell := range row {
		for name, value := range cell {
			cells[strings.ToLower(name)] = value
		}
	}
	uid, at, times := cells["uid"], cells["at"], cells["times"]
	if uid == "" {
		return audit.StoredEvent{}, errors.New("decoding a row: it has no UID")
	}
	// The result has a fraction of a second, which entries have not.
	t, err := time.Parse(timeFormat, at[:min(len(at), len(timeFormat))])
	if err != nil {
		return audit.StoredEvent{}, fmt.Errorf("decoding the row of %q: time %q: expected one such as 2026-01-31 12:00:00.000", uid, at)
	}
	n, err := strconv.Atoi(times)
	if err != nil || n < 1 {
		return audit.StoredEvent{}, fmt.Errorf("decoding the row of %q: count %q", uid, times)
	}
	return audit.StoredEvent{UID: uid, Time: t.Unix(), Times: n}, nil
}

// stamp writes a time as SQL has it.
func stamp(second int64) string {
	return time.Unix(min(max(second, audit.MinEventTime), audit.MaxEventTime), 0).UTC().Format(timeFormat)
}

// service says what the failures of a query mean.
var service = awscall.Service{
	Name:     "CloudTrail",
	Endpoint: "AWS_ENDPOINT_URL_CLOUDTRAIL",
	Permission: "allow cloudtrail:StartQuery, cloudtrail:DescribeQuery and cloudtrail:GetQueryResults on the event data store, " +
		"and kms:Decrypt on its key if it has one",
	Codes: map[string]string{
		"EventDataStoreNotFoundException": "name the event data store behind the channel, of this account and Region, with --event-data-store (RELAY_EVENT_DATA_STORE); " +
			"aws cloudtrail list-event-data-stores lists them",
		"InactiveEventDataStoreException": "the event data store is stopped or pending deletion: restore it, or leave --event-data-store out",
	},
}

// explain tells what a person has to change from what may pass, and leaves out what
// AWS repeats of a request.
func (l *Lake) explain(ctx context.Context, err error) error {
	if f := l.caller.Explain(ctx, err); f != nil {
		err = f.Err()
	}
	return fmt.Errorf("querying CloudTrail Lake: %w", err)
}
