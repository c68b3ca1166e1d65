package app

import (
	"context"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/cloudtrail"
	"github.com/kong-cloudtrail/relay/internal/cloudwatch"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/delivery"
	"github.com/kong-cloudtrail/relay/internal/jsonl"
	"github.com/kong-cloudtrail/relay/internal/lake"
	"github.com/kong-cloudtrail/relay/internal/ocsf"
)

// destinationKind is everything that differs between destinations, except their settings,
// which are in config's table of destinations.
type destinationKind struct {
	// ledgerName names the destination in the ledger's keys. Everything that tells two
	// destinations apart must be in it. If two had the same name, what was delivered to one
	// would never be put into the other.
	ledgerName func(ctx context.Context, s *config.Settings) (string, error)
	// label names the destination for a person.
	label func(s *config.Settings) string
	// open opens the destination. It opens a file, and makes no connection.
	open func(ctx context.Context, s *config.Settings, stdout io.Writer) (opened, error)
	// batchEntries, batchBytes and flightBytes bound batches and what is in flight, as the
	// fields of pipeline.Options do; 0 for the default there.
	batchEntries, batchBytes, flightBytes int
	// bindsAccount reports whether the ledger is tied to the AWS account of the credentials,
	// because its name does not contain the account. Nil if it never is.
	bindsAccount func(s *config.Settings) bool
	hint         string // for an error that has none
	caveat       string // what relay check cannot find out; may be empty
	// holdings opens a reader of the events in the destination. Required; it returns nil, nil
	// if the destination cannot be read.
	holdings func(ctx context.Context, s *config.Settings) (*Holdings, error)
	// checkQueries makes relay check try the holdings, where there are any.
	checkQueries func(s *config.Settings) bool // may be nil
}

type opened struct {
	delivery.Destination
	urgent delivery.Destination // for entries that a trigger asked for; nil: Destination
	// check returns an error with a hint unless the destination can be expected to
	// accept events. It delivers nothing.
	check   func(ctx context.Context) error
	reopen  func() error                       // opens its file again; nil if it has none
	close   func() error                       // may be nil
	inspect func(ctx context.Context) []string // looks at its settings, and returns what is worth a warning; may be nil
}

// destinations is the one list of destinations that can be opened.
func destinations() map[config.Destination]destinationKind {
	return map[config.Destination]destinationKind{
		config.ToCloudTrail: {
			ledgerName: func(ctx context.Context, s *config.Settings) (string, error) {
				cfg, err := s.AWSConfig(ctx)
				return s.ChannelARN + at(cloudtrail.OtherEndpoint(cfg)), err
			},
			label:    func(s *config.Settings) string { return s.ChannelARN },
			open:     openCloudTrail,
			hint:     awsHint,
			caveat:   "whether it accepts this account and source shows only with the first event",
			holdings: lakeHoldings,
			checkQueries: func(s *config.Settings) bool {
				return s.EventDataStore != ""
			},
		},
		config.ToCloudWatch: {
			// If the log group is named without its account, this name has none either: it must
			// not depend on whether AWS can be asked. See bindsAccount.
			ledgerName: func(ctx context.Context, s *config.Settings) (string, error) {
				cfg, err := s.AWSConfig(ctx)
				return "logs:" + s.AccountID + ":" + s.Region + ":" + s.LogGroup + ":" + s.LogStream + at(cloudwatch.OtherEndpoint(cfg)), err
			},
			label: func(s *config.Settings) string {
				return "log group " + s.LogGroup + ", stream " + s.LogStream + ", " + s.Region
			},
			open:         openCloudWatch,
			batchEntries: cloudwatch.BatchEntries, batchBytes: cloudwatch.BatchBytes, flightBytes: cloudwatch.FlightBytes,
			bindsAccount: func(s *config.Settings) bool { return s.AccountID == "" },
			hint:         awsHint,
			holdings:     logsHoldings,
		},
		config.ToJSONL: {
			ledgerName: jsonlName,
			label:      func(s *config.Settings) string { return "jsonl:" + s.JSONLFile },
			open:       openJSONL,
			hint:       fileHint,
			holdings: func(_ context.Context, s *config.Settings) (*Holdings, error) {
				if r := jsonl.NewReader(s.JSONLFile); !s.EventsToStdout() && r != nil {
					return &Holdings{Name: "the file", Events: r.Events}, nil
				}
				return nil, nil
			},
		},
	}
}

// at returns the part of a destination's name that says at which endpoint it is.
func at(endpoint string) string {
	if endpoint == "" {
		return ""
	}
	return "@" + endpoint
}

func openCloudTrail(ctx context.Context, s *config.Settings, _ io.Writer) (opened, error) {
	cfg, err := s.AWSConfig(ctx)
	if err != nil {
		return opened{}, err
	}
	d, err := cloudtrail.New(cloudtrail.Options{
		Config: cfg, ChannelARN: s.ChannelARN, ExternalID: s.ExternalID, Hostname: s.KongAdminAPI,
		ErrorCodes: s.ErrorCodes, Rate: float64(s.PutRate),
	})
	if err != nil {
		return opened{}, err
	}
	return opened{Destination: d, urgent: d.Urgent(), check: d.Check}, nil
}

func openCloudWatch(ctx context.Context, s *config.Settings, _ io.Writer) (opened, error) {
	cfg, err := s.AWSConfig(ctx)
	if err != nil {
		return opened{}, err
	}
	d := cloudwatch.New(cloudwatch.Options{Config: cfg, Group: s.LogGroup, Stream: s.LogStream, Encode: newEncoder(s)})
	inspect := func(ctx context.Context) []string {
		group, err := d.Inspect(ctx)
		if err != nil { // it is not needed to deliver
			return []string{"its retention and deletion protection could not be looked at (logs:DescribeLogGroups)"}
		}
		return group.Warnings()
	}
	return opened{Destination: d, check: d.Check, inspect: inspect}, nil
}

func openJSONL(_ context.Context, s *config.Settings, stdout io.Writer) (opened, error) {
	w, err := jsonl.Open(s.JSONLFile, stdout, newEncoder(s))
	if err != nil {
		return opened{}, err
	}
	return opened{Destination: w, check: w.Check, reopen: w.Reopen, close: w.Close}, nil
}

func jsonlName(_ context.Context, s *config.Settings) (string, error) {
	if s.EventsToStdout() {
		return "jsonl:-", nil
	}
	path, err := filepath.Abs(s.JSONLFile)
	if err != nil {
		return "", fmt.Errorf("finding the path of %s: %w", s.JSONLFile, err)
	}
	return "jsonl:" + path, nil
}

func newEncoder(s *config.Settings) audit.Encode {
	if s.EventFormat == "ocsf" {
		return ocsf.New(s.KongAdminAPI, time.Now).AppendEvent
	}
	return cloudtrail.NewEncoder(s.KongAdminAPI, s.AccountID, s.ErrorCodes)
}

// Holdings reads the events that a destination holds.
type Holdings struct {
	Name string // of the destination, for a person
	// Visible is how long the destination may take to show an event that it has accepted.
	Visible time.Duration
	// Most is how many events may be asked for at once; 0 for any number.
	Most int
	// Refiles reports whether the destination may file an event under the time of its put
	// rather than its own.
	Refiles bool
	// Events yields the events that are filed under a time from since to until
	// (excluded), Unix seconds, in no order that can be relied on. It may yield an event
	// once for each time that it is there, and yields a line that is not an event without
	// a UID. It retries for about a minute what may pass. An error ends it: a
	// [*audit.SettingsError] if a person has to act.
	Events func(ctx context.Context, since, until int64) iter.Seq2[audit.StoredEvent, error]
}

// Holdings returns a reader of the events in the destination, or nil if it cannot be read:
// standard output, a pipe, a channel whose event data store is not known.
func (a *App) Holdings(ctx context.Context) (*Holdings, error) {
	return a.kind.holdings(ctx, &a.Settings)
}

const (
	lakeVisible = 15 * time.Minute
	lakeMost    = 50_000
	logsVisible = time.Minute
)

func lakeHoldings(ctx context.Context, s *config.Settings) (*Holdings, error) {
	if s.EventDataStore == "" {
		return nil, nil
	}
	cfg, err := s.AWSConfig(ctx)
	if err != nil {
		return nil, err
	}
	l, err := lake.New(cfg, s.EventDataStore)
	if err != nil {
		return nil, err
	}
	return &Holdings{Name: "CloudTrail Lake", Visible: lakeVisible, Most: lakeMost, Events: l.Events}, nil
}

func logsHoldings(ctx context.Context, s *config.Settings) (*Holdings, error) {
	cfg, err := s.AWSConfig(ctx)
	if err != nil {
		return nil, err
	}
	r := cloudwatch.NewReader(cfg, s.LogGroup, s.LogStream)
	return &Holdings{Name: "CloudWatch Logs", Visible: logsVisible, Refiles: true, Events: r.Events}, nil
}
