// Package app is the wiring that every host of the relay shares: it opens what the
// settings ask for and builds what makes the passes.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/awscall"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/kongadmin"
	"github.com/kong-cloudtrail/relay/internal/ledger/boltledger"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisconn"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisledger"
	"github.com/kong-cloudtrail/relay/internal/secret"
	"github.com/kong-cloudtrail/relay/internal/walk"
)

// App is a relay with its connections: to Kong, the ledger and the destination.
type App struct {
	Settings config.Settings
	Log      *slog.Logger
	Kong     *kongadmin.Client
	Store    Store

	kind         destinationKind // zero if no destination is set
	source       walk.Source     // Kong
	destination  opened
	certificates *certificates
	report       Report         // set by Watch
	pace         *pace          // set by Watch
	closers      []func() error // in the order in which they were opened
}

func newApp(s config.Settings, log *slog.Logger) *App {
	return &App{Settings: s, Log: log, kind: destinations()[s.Destination], certificates: &certificates{}}
}

// Open wires what is needed of Kong, ledger and destination. It opens files, and makes no
// connection except to a secret store; but if a ledger is needed without Kong, it has to
// be there already, and Open fails if it cannot be reached. The ledger's name contains that of
// the destination, so the settings must say the destination even if it is not opened.
func Open(ctx context.Context, s config.Settings, log *slog.Logger, stdout io.Writer, n config.Need) (*App, error) {
	a := newApp(s, log)
	if err := a.open(ctx, stdout, n); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func (a *App) open(ctx context.Context, stdout io.Writer, n config.Need) error {
	if n&(config.NeedLedger|config.NeedDestination) != 0 && a.kind.open == nil {
		return fmt.Errorf("no destination is called %q", a.Settings.Destination)
	}
	existing := n&config.NeedKong == 0
	if !existing {
		if err := a.openKong(); err != nil {
			return err
		}
	}
	if n&config.NeedLedger != 0 {
		if err := a.openStore(ctx, existing); err != nil {
			return err
		}
	}
	if n&config.NeedDestination != 0 {
		var err error
		if a.destination, err = a.kind.open(ctx, &a.Settings, stdout); err != nil {
			return err
		}
		if a.destination.close != nil {
			a.closers = append(a.closers, a.destination.close)
		}
	}
	if n&config.NeedLedger != 0 && existing {
		return a.ExplainLedger(a.Store.Begin(ctx))
	}
	return nil
}

// Encoder returns a function that maps entries to the events that the destination gets.
func (a *App) Encoder() audit.Encode { return newEncoder(&a.Settings) }

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
	if a.destination.reopen == nil {
		return nil
	}
	return a.destination.reopen()
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

func (a *App) openStore(ctx context.Context, mustExist bool) (err error) {
	s := &a.Settings
	name, err := a.kind.ledgerName(ctx, s)
	if err != nil {
		return err
	}
	if s.LedgerFile != "" {
		a.Store, err = boltledger.Open(s.LedgerFile, boltledger.Options{Source: s.Source, Destination: name, Adopt: s.Adopt, MustExist: mustExist})
	} else {
		server := redisconn.Options{
			Addrs: s.RedisAddrs, DB: s.RedisDB, Cluster: s.RedisCluster, SentinelMaster: s.RedisSentinelMaster,
			TLS: a.certificates.watch("ledger", s.TLSToRedis()), Credentials: credentials(s.RedisUsername, s.RedisPassword),
		}
		if s.RedisSentinelPassword.IsSet() {
			server.SentinelCredentials = credentials(s.RedisSentinelUsername, s.RedisSentinelPassword)
		}
		a.Store = redisledger.Open(server, redisledger.Options{Prefix: s.RedisPrefix, Source: s.Source, Destination: name})
	}
	if err == nil {
		a.closers = append(a.closers, a.Store.Close)
	}
	return err
}

// credentials returns a function that reads a password again once it was refused.
func credentials(username string, password secret.Secret) redisconn.Credentials {
	return func(ctx context.Context, fresh bool) (string, string, error) {
		text, err := password.Fetch(ctx, fresh)
		return username, text, err
	}
}

// Bind checks the eviction policy of the ledger's server, then ties the ledger to this Kong
// and this AWS account, so that a second gateway does not inherit the marks of the first.
func (a *App) Bind(ctx context.Context) error {
	warnings, err := a.CheckLedger(ctx)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		a.WarnOfLedger(w)
	}
	return a.bind(ctx)
}

// WarnOfLedger logs a lesser worry about the settings of the ledger's server.
func (a *App) WarnOfLedger(reason string) {
	a.Log.Warn("ledger may forget", "reason", reason, "hint", "set maxmemory-policy to noeviction, or give the ledger a Redis by itself")
}

// CheckLedger looks at the settings of the ledger's server, if it has any. It fails
// with audit.ErrEvicting if they would make it forget what must be kept, and returns
// a sentence for each lesser worry.
func (a *App) CheckLedger(ctx context.Context) (warnings []string, err error) {
	warnings, err = a.Store.Check(ctx)
	return warnings, a.ExplainLedger(err)
}

// bind ties the ledger to this Kong and this AWS account. As the address may be mistyped, Kong
// must answer there before the ledger of another one is adopted or --adopt is advised.
func (a *App) bind(ctx context.Context) error {
	err := a.Store.BindKong(ctx, a.Settings.KongAdminAPI, false)
	if errors.Is(err, audit.ErrLedgerMismatch) {
		if _, kongErr := a.source.Page(ctx, audit.Query{Size: 1}); kongErr != nil {
			return defaultHint(fmt.Errorf("the ledger was used with another KONG_ADMIN_API, and this one does not answer: %w", kongErr), kongHint)
		}
		if a.Settings.Adopt {
			err = a.Store.BindKong(ctx, a.Settings.KongAdminAPI, true)
		}
	}
	if errors.Is(err, audit.ErrLedgerMismatch) {
		return audit.NewSettingsError(err, "give a second gateway another name with --source (RELAY_SOURCE); "+
			"for the same gateway at a new address, run once with --adopt (RELAY_ADOPT=true)")
	}
	if err == nil {
		err = a.bindAccount(ctx)
	}
	return a.ExplainLedger(err)
}

// bindAccount ties the ledger to the AWS account of the credentials, where the ledger's
// name does not contain it. If the account cannot be found out, nothing is compared.
func (a *App) bindAccount(ctx context.Context) error {
	s := &a.Settings
	if a.kind.bindsAccount == nil || !a.kind.bindsAccount(s) {
		return nil
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
	if errors.Is(err, audit.ErrAccountMismatch) {
		return audit.NewSettingsError(err, "the credentials are of the account "+account+": correct them, or give each account a name of its own with "+
			"--source (RELAY_SOURCE), or name the log group by its ARN (RELAY_LOG_GROUP); if the ledger is this account's after all, run once with --adopt")
	}
	return err
}

// ExplainLedger adds a hint to the error of a ledger that cannot be reached, unless it has
// one.
func (a *App) ExplainLedger(err error) error {
	if err == nil || audit.Hint(err) != "" || errors.Is(err, context.Canceled) || a.Settings.LedgerFile != "" {
		return err
	}
	return audit.WithHint(err, "start Redis or Valkey, or name the right one with REDIS_HOST (--redis-tls if it speaks TLS); "+
		"or, for a single relay, use --ledger bolt:relay.db")
}
