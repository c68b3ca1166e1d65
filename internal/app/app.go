// Package app is the wiring that every host of the relay shares: it opens what the
// settings ask for and makes the passes.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/awscall"
	"github.com/kong-cloudtrail/relay/internal/cloudtrail"
	"github.com/kong-cloudtrail/relay/internal/cloudwatch"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/delivery"
	"github.com/kong-cloudtrail/relay/internal/jsonl"
	"github.com/kong-cloudtrail/relay/internal/kongadmin"
	"github.com/kong-cloudtrail/relay/internal/ledger/boltledger"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisledger"
	"github.com/kong-cloudtrail/relay/internal/ocsf"
	"github.com/kong-cloudtrail/relay/internal/walk"
)

// App holds what was opened.
type App struct {
	Settings    config.Settings
	Log         *slog.Logger
	Kong        *kongadmin.Client
	Store       Store
	Destination Destination

	source       walk.Source             // Kong
	urgent       delivery.Destination    // for entries that a trigger asked for; nil: Destination
	logs         *cloudwatch.Destination // nil: another destination
	reopen       func() error            // opens the destination's file again; nil if it is none
	certificates *certificates
	report       Report         // set by Watch
	closers      []func() error // in the order in which they were opened
}

// Open wires what the settings ask for. It contacts nothing but a secret store,
// and opens the file of a ledger or a destination that is one.
func Open(ctx context.Context, s config.Settings, log *slog.Logger, stdout io.Writer) (*App, error) {
	a := &App{Settings: s, Log: log, certificates: &certificates{}}
	err := a.openKong()
	if err == nil {
		err = a.openDestination(ctx, stdout)
	}
	if err == nil {
		err = a.openStore(ctx, false)
	}
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// OpenSource wires Kong and the ledger, but no destination.
func OpenSource(ctx context.Context, s config.Settings, log *slog.Logger) (*App, error) {
	a := &App{Settings: s, Log: log, certificates: &certificates{}}
	err := a.openKong()
	if err == nil {
		err = a.openStore(ctx, false)
	}
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// Encoder returns what maps entries to the events that the destination gets.
func (a *App) Encoder() (func(*audit.Entry) (id string, event []byte), error) {
	return newEncoder(&a.Settings)
}

// OpenLedger wires the ledger, and the destination if it is wanted, but not Kong.
// It fails if the ledger cannot be reached, or is a file that does not exist.
func OpenLedger(ctx context.Context, s config.Settings, log *slog.Logger, stdout io.Writer, destination bool) (*App, error) {
	a := &App{Settings: s, Log: log, certificates: &certificates{}}
	err := a.openStore(ctx, true)
	if err == nil && destination {
		err = a.openDestination(ctx, stdout)
	}
	if err == nil {
		_, err = a.Store.Begin(ctx)
		err = a.ExplainLedger(err)
	}
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// OpenKong wires Kong alone.
func OpenKong(s config.Settings, log *slog.Logger) (*App, error) {
	a := &App{Settings: s, Log: log, certificates: &certificates{}}
	return a, a.openKong()
}

// Close undoes Open, last opened first.
func (a *App) Close() error {
	var errs []error
	for _, c := range slices.Backward(a.closers) {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// Reopen opens the destination's file again, if it is one.
func (a *App) Reopen() error {
	if a.reopen == nil {
		return nil
	}
	return a.reopen()
}

// WrapDestination puts something between the passes and the destination.
func (a *App) WrapDestination(wrap func(delivery.Destination) delivery.Destination) {
	a.Destination = wrappedDestination{a.Destination, wrap(a.Destination)}
	if a.urgent != nil {
		a.urgent = wrap(a.urgent)
	}
}

// wrappedDestination puts by way of another destination.
type wrappedDestination struct {
	Destination
	puts delivery.Destination
}

// Put implements [delivery.Destination].
func (w wrappedDestination) Put(ctx context.Context, entries []audit.Entry) ([]audit.Verdict, error) {
	return w.puts.Put(ctx, entries)
}

func (a *App) openKong() error {
	s := &a.Settings
	o := kongadmin.Options{
		URL: s.KongAdminAPI, Timeout: s.KongTimeout, PublicKey: s.AuditPublicKey, Logger: a.Log,
		TLS: a.certificates.watch("kong", s.TLSToKong()), RootCA: s.KongRootCA, Attempted: a.attempted,
	}
	if s.KongSendToken {
		o.Token = s.KongToken.Fetch
	}
	var err error
	a.Kong, err = kongadmin.New(o)
	a.source = a.Kong
	return err
}

// destinationName names a destination in the ledger's keys. Everything that tells
// two destinations apart must be in it: what is in the ledger of one is not put again.
// An account that a log group is named without is not: the ledger is bound to it (see
// bindAccount), as its name must not hang on whether AWS can be asked.
func destinationName(ctx context.Context, s *config.Settings) (string, error) {
	switch s.Destination {
	case config.ToCloudTrail:
		cfg, err := s.AWSConfig(ctx)
		return s.ChannelARN + at(cloudtrail.OtherEndpoint(cfg)), err
	case config.ToCloudWatch:
		cfg, err := s.AWSConfig(ctx)
		return "logs:" + s.AccountID + ":" + s.Region + ":" + s.LogGroup + ":" + s.LogStream + at(cloudwatch.OtherEndpoint(cfg)), err
	case config.ToJSONL:
		if s.JSONLFile == "-" {
			return "jsonl:-", nil
		}
		path, err := filepath.Abs(s.JSONLFile)
		if err != nil {
			return "", fmt.Errorf("finding the path of %s: %w", s.JSONLFile, err)
		}
		return "jsonl:" + path, nil
	}
	return "", unknownDestination(s)
}

// at returns the part of a destination's name that says at which endpoint it is.
func at(endpoint string) string {
	if endpoint == "" {
		return ""
	}
	return "@" + endpoint
}

func unknownDestination(s *config.Settings) error {
	return fmt.Errorf("no destination is called %q", s.Destination)
}

func (a *App) openStore(ctx context.Context, mustExist bool) error {
	store, err := newStore(ctx, &a.Settings, mustExist, a.certificates)
	if err != nil {
		return err
	}
	a.Store, a.closers = store, append(a.closers, store.Close)
	return nil
}

func newStore(ctx context.Context, s *config.Settings, mustExist bool, seen *certificates) (Store, error) {
	name, err := destinationName(ctx, s)
	if err != nil {
		return nil, err
	}
	if s.LedgerFile != "" {
		return boltledger.Open(s.LedgerFile, boltledger.Options{Source: s.Source, Destination: name, Adopt: s.Adopt, MustExist: mustExist})
	}
	o := redisledger.Options{
		Addrs: s.RedisAddrs, DB: s.RedisDB, Cluster: s.RedisCluster, SentinelMaster: s.RedisSentinelMaster,
		Prefix: s.RedisPrefix, Source: s.Source, Destination: name, TLS: seen.watch("ledger", s.TLSToRedis()),
	}
	o.Credentials = credentials(s.RedisUsername, s.RedisPassword)
	if s.RedisSentinelPassword.IsSet() {
		o.SentinelCredentials = credentials(s.RedisSentinelUsername, s.RedisSentinelPassword)
	}
	return redisledger.Open(ctx, o)
}

// credentials returns a function that reads a password again once it was refused.
func credentials(username string, password config.Secret) func(context.Context, bool) (string, string, error) {
	return func(ctx context.Context, fresh bool) (string, string, error) {
		text, err := password.Fetch(ctx, fresh)
		return username, text, err
	}
}

func (a *App) openDestination(ctx context.Context, stdout io.Writer) error {
	s := &a.Settings
	if s.Destination == config.ToCloudTrail {
		cfg, err := s.AWSConfig(ctx)
		if err != nil {
			return err
		}
		destination, err := cloudtrail.New(cloudtrail.Options{
			Config: cfg, ChannelARN: s.ChannelARN, ExternalID: s.ExternalID, Hostname: s.KongAdminAPI,
			ErrorCodes: s.ErrorCodes, Rate: float64(s.PutRate),
		})
		if err != nil {
			return err
		}
		a.Destination, a.urgent = destination, destination.Urgent()
		return nil
	}
	encode, err := newEncoder(s)
	if err != nil {
		return err
	}
	switch s.Destination {
	case config.ToCloudTrail:
	case config.ToJSONL:
		w, err := jsonl.Open(s.JSONLFile, stdout, encode)
		if err != nil {
			return err
		}
		a.Destination, a.reopen, a.closers = w, w.Reopen, append(a.closers, w.Close)
		return nil
	case config.ToCloudWatch:
		cfg, err := s.AWSConfig(ctx)
		if err != nil {
			return err
		}
		a.logs, err = cloudwatch.New(cloudwatch.Options{Config: cfg, Group: s.LogGroup, Stream: s.LogStream, Encode: encode})
		if err != nil {
			return err
		}
		a.Destination = a.logs
		return nil
	}
	return unknownDestination(s)
}

// newEncoder returns what maps entries to the events of the format that is set.
func newEncoder(s *config.Settings) (func(*audit.Entry) (id string, event []byte), error) {
	if s.EventFormat == "ocsf" {
		return ocsf.New(s.KongAdminAPI, time.Now).Event, nil
	}
	return cloudtrail.NewEncoder(s.KongAdminAPI, s.AccountID, s.ErrorCodes)
}

// Bind makes sure that the ledger keeps what it is given, and ties it to this Kong,
// so that a second gateway does not inherit the marks of the first.
func (a *App) Bind(ctx context.Context) error {
	warnings, err := a.CheckLedger(ctx)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		a.Log.Warn("ledger may forget", "reason", w)
	}
	return a.bindStore(ctx)
}

// CheckLedger looks at the settings of the ledger's server, if it has any. It fails
// with audit.ErrEvicting if they would make it forget what must be kept, and returns
// a sentence for each lesser worry.
func (a *App) CheckLedger(ctx context.Context) (warnings []string, err error) {
	warnings, err = a.Store.Check(ctx)
	return warnings, a.ExplainLedger(err)
}

// bindStore ties the ledger to this Kong. A ledger of another Kong is adopted, or
// advice to adopt it is given, only once Kong has answered at this address: it may
// be mistyped.
func (a *App) bindStore(ctx context.Context) error {
	err := a.Store.Bind(ctx, a.gateway(), false)
	if errors.Is(err, audit.ErrForeignLedger) {
		if _, kongErr := a.source.Page(ctx, audit.Query{Size: 1}); kongErr != nil {
			return withHint(fmt.Errorf("the ledger was used with another KONG_ADMIN_API, and this one does not answer: %w", kongErr), kongHint)
		}
		if a.Settings.Adopt {
			err = a.Store.Bind(ctx, a.gateway(), true)
		}
	}
	if errors.Is(err, audit.ErrForeignLedger) {
		return audit.NewSettingsError(err, "give a second gateway another name with --source (RELAY_SOURCE); "+
			"for the same gateway at a new address, run once with --adopt (RELAY_ADOPT=true)")
	}
	if err == nil {
		err = a.bindAccount(ctx)
	}
	return a.ExplainLedger(err)
}

// bindAccount ties the ledger to the AWS account of a log group that is named without
// it. Where the account cannot be found out nothing is compared.
func (a *App) bindAccount(ctx context.Context) error {
	s := &a.Settings
	if s.Destination != config.ToCloudWatch || s.AccountID != "" {
		return nil // it is part of the ledger's name, or there is none
	}
	cfg, err := s.AWSConfig(ctx)
	if err != nil {
		return err
	}
	account, err := awscall.Account(ctx, cfg)
	if err != nil {
		a.Log.Debug("account of the log group not known", "err", err)
		return nil
	}
	err = a.Store.BindAccount(ctx, account, s.Adopt)
	if errors.Is(err, audit.ErrForeignAccount) {
		return audit.NewSettingsError(err, "the credentials are of the account "+account+": correct them, or give each account a name of its own with "+
			"--source (RELAY_SOURCE), or name the log group by its ARN (RELAY_LOG_GROUP); if the ledger is this account's after all, run once with --adopt")
	}
	return err
}

// ExplainLedger adds what to do about a ledger that cannot be reached, unless the
// error says it already.
func (a *App) ExplainLedger(err error) error {
	if err == nil || audit.Hint(err) != "" || errors.Is(err, context.Canceled) || a.Settings.LedgerFile != "" {
		return err
	}
	return audit.WithHint(err, "start Redis or Valkey, or name the right one with REDIS_HOST (--redis-tls if it speaks TLS); "+
		"or, for a single relay, use --ledger bolt:relay.db")
}

// gateway is the Admin API's address in the form that the ledger remembers.
func (a *App) gateway() string {
	u, err := url.Parse(a.Settings.KongAdminAPI)
	if err != nil {
		return a.Settings.KongAdminAPI
	}
	return strings.ToLower(u.Scheme+"://"+u.Host) + strings.TrimRight(u.Path, "/")
}
