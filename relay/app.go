package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/cloudtrail"
	"github.com/kong-cloudtrail/relay/internal/cloudwatch"
	"github.com/kong-cloudtrail/relay/internal/kongadmin"
	"github.com/kong-cloudtrail/relay/internal/ledger"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

// store is all of a ledger that the commands use.
type store interface {
	pipeline.Ledger
	pipeline.Book
	Acquire(ctx context.Context, requestRerun bool) (ledger.Lease, error)
	UndeliveredEntry(ctx context.Context, id string) (audit.Undelivered, bool, error)
	Announce(ctx context.Context, ids []string, at time.Time) error
	Announced(ctx context.Context) ([]audit.Announcement, error)
	OldestUndelivered(ctx context.Context) (dead, deferred time.Time, err error)
	Unannounce(ctx context.Context, ids []string) error
	NoteOwnReads(ctx context.Context, ids []string) error
	AreOwnReads(ctx context.Context, ids []string) ([]bool, error)
	ReserveNonce(ctx context.Context, nonce string, d time.Duration) (fresh bool, err error)
	Bind(ctx context.Context, url string, adopt bool) error
	LeaseLeft(ctx context.Context) (time.Duration, error)
	Ping(ctx context.Context) error
	Close() error
}

// sink is all of a destination that the commands use.
type sink interface {
	pipeline.Sink
	Check(ctx context.Context) error
}

// app is the wiring that every host shares: the daemon, a single pass, the Lambda.
type app struct {
	settings Settings
	log      *slog.Logger
	kong     *kongadmin.Client
	store    store
	sink     sink
	closers  []func() error // in the order in which they were opened
}

// open wires what the settings ask for. It contacts nothing but a secret store,
// and for a ledger in a file it opens the file.
func open(ctx context.Context, s Settings, log *slog.Logger, stdout io.Writer) (*app, error) {
	a := &app{settings: s, log: log}
	var err error
	if a.kong, err = openKong(s, log); err != nil {
		return nil, err
	}
	if a.sink, err = a.openSink(ctx, stdout); err != nil {
		return nil, errors.Join(err, a.close())
	}
	if a.store, err = openStore(ctx, s); err != nil {
		return nil, errors.Join(err, a.close())
	}
	a.closers = append(a.closers, a.store.Close)
	return a, nil
}

// close undoes open, last opened first.
func (a *app) close() error {
	var errs []error
	for i := len(a.closers) - 1; i >= 0; i-- {
		errs = append(errs, a.closers[i]())
	}
	return errors.Join(errs...)
}

func openKong(s Settings, log *slog.Logger) (*kongadmin.Client, error) {
	o := kongadmin.Options{URL: s.KongAdminAPI, Timeout: s.KongTimeout, PublicKey: s.AuditPublicKey, Logger: log}
	if s.KongSendToken {
		o.Token = s.KongToken.Fetch
	}
	tlsConfig, err := clientTLS(nil, s.KongClientCert, s.KongTLSServerName)
	if err != nil {
		return nil, err
	}
	o.TLS, o.RootCA = tlsConfig, s.KongRootCA
	return kongadmin.New(o)
}

// clientTLS trusts a CA beside the system's own.
func clientTLS(ca []byte, cert *tls.Certificate, serverName string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName}
	if ca != nil {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(ca) {
			return nil, usagef("the CA holds no certificate in PEM")
		}
		c.RootCAs = pool
	}
	if cert != nil {
		c.Certificates = []tls.Certificate{*cert}
	}
	return c, nil
}

// destinationName names a destination in the ledger's keys.
func destinationName(s Settings) string {
	switch s.Destination {
	case ToCloudWatch:
		return "logs:" + s.Region + ":" + s.LogGroup + ":" + s.LogStream
	case ToJSONL:
		return "jsonl:" + s.JSONLFile
	}
	return s.ChannelARN
}

func openStore(ctx context.Context, s Settings) (store, error) {
	if s.LedgerFile != "" {
		return ledger.OpenBolt(s.LedgerFile, ledger.BoltOptions{})
	}
	o := ledger.RedisOptions{
		Addrs: s.RedisAddrs, DB: s.RedisDB, Cluster: s.RedisCluster, SentinelMaster: s.RedisSentinelMaster,
		Prefix: s.RedisPrefix, Source: s.Source, Destination: destinationName(s),
	}
	o.Username = s.RedisUsername
	if s.RedisPassword.IsSet() {
		o.Credentials = func(ctx context.Context) (string, string, error) {
			password, err := s.RedisPassword.Reveal(ctx)
			return s.RedisUsername, password, err
		}
	}
	if s.RedisTLS {
		tlsConfig, err := clientTLS(s.RedisCA, nil, "")
		if err != nil {
			return nil, err
		}
		o.TLS = tlsConfig
	}
	return ledger.OpenRedis(ctx, o)
}

func (a *app) openSink(ctx context.Context, stdout io.Writer) (sink, error) {
	s := a.settings
	o := cloudtrail.Options{
		ChannelARN: s.ChannelARN, ExternalID: s.ExternalID, Region: s.Region, Hostname: s.KongAdminAPI,
		ErrorCodes: s.ErrorCodes, Rate: float64(s.PutRate),
	}
	if s.Destination == ToCloudTrail {
		cfg, err := s.AWSConfig(ctx)
		if err != nil {
			return nil, err
		}
		o.Credentials = cfg.Credentials
		return cloudtrail.New(o)
	}
	encode, err := cloudtrail.NewEncoder(s.KongAdminAPI, s.AccountID, s.ErrorCodes)
	if err != nil {
		return nil, err
	}
	if s.Destination == ToJSONL {
		j, err := newJSONLines(s.JSONLFile, stdout, encode)
		if err != nil {
			return nil, err
		}
		a.closers = append(a.closers, j.Close)
		return j, nil
	}
	cfg, err := s.AWSConfig(ctx)
	if err != nil {
		return nil, err
	}
	return cloudwatch.New(cloudwatch.Options{Config: cfg, Group: s.LogGroup, Stream: s.LogStream, Encode: encode})
}

// bind makes sure that the ledger keeps what it is given, and ties it to this Kong,
// so that a second gateway does not inherit the marks of the first.
func (a *app) bind(ctx context.Context) error {
	warnings, err := a.checkStore(ctx)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		a.log.Warn("ledger may forget", "reason", w)
	}
	return a.bindStore(ctx)
}

// checkStore looks at the settings of the ledger's server, if it has any.
func (a *app) checkStore(ctx context.Context) (warnings []string, err error) {
	if c, has := a.store.(interface {
		Check(ctx context.Context) ([]string, error)
	}); has {
		warnings, err = c.Check(ctx)
	}
	return warnings, a.reachable(err)
}

func (a *app) bindStore(ctx context.Context) error {
	err := a.store.Bind(ctx, a.gateway(), a.settings.Adopt)
	if errors.Is(err, audit.ErrForeignLedger) {
		return audit.Settings(err, "if this is a second gateway, give it a name of its own with --source (RELAY_SOURCE); "+
			"if it is the same gateway at a new address, run once with --adopt (RELAY_ADOPT=true)")
	}
	return a.reachable(err)
}

// reachable adds what to do about a ledger that cannot be reached, unless the
// error says it by itself.
func (a *app) reachable(err error) error {
	if err == nil || audit.Hint(err) != "" || errors.Is(err, context.Canceled) || a.settings.LedgerFile != "" {
		return err
	}
	return audit.WithHint(err, "start Redis or Valkey, or name the right one with REDIS_HOST (--redis-tls if it speaks TLS); "+
		"one relay alone can do without: --ledger bolt:relay.db")
}

// gateway is the Admin API's address in the form that the ledger remembers.
func (a *app) gateway() string {
	u, err := url.Parse(a.settings.KongAdminAPI)
	if err != nil {
		return a.settings.KongAdminAPI
	}
	return strings.ToLower(u.Scheme+"://"+u.Host) + strings.TrimRight(u.Path, "/")
}

// pipeline makes the passes.
func (a *app) pipeline(o pipeline.Observer) *pipeline.Pipeline {
	s := a.settings
	options := pipeline.Options{
		Source: a.kong, Ledger: a.store, Book: a.store, Sink: a.sink,
		Acquire: func(ctx context.Context, requestRerun bool) (pipeline.Lease, error) {
			return a.store.Acquire(ctx, requestRerun)
		},
		PageSize: s.PageSize, Workers: s.PutConcurrency, RetryFor: s.RetryFor, RecordTTL: s.RecordTTL,
		SkipOwnReads: s.SkipOwnReads, Observer: o, Logger: a.log,
	}
	if s, ok := a.sink.(*cloudtrail.Sink); ok {
		options.UrgentSink = s.Urgent()
	}
	if !s.StartAt.IsZero() {
		options.StartAt = s.StartAt.Unix()
	}
	if len(s.Redact) > 0 {
		options.Prepare = redactor(s.Redact)
	}
	return pipeline.New(options)
}

// newLogger writes to stderr: text on a terminal, else JSON.
func newLogger(s Settings, stderr io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: s.LogLevel}
	format := s.LogFormat
	if format == "auto" {
		format = "json"
		if isTerminal(stderr) {
			format = "text"
		}
	}
	if format == "text" {
		return slog.New(slog.NewTextHandler(stderr, o))
	}
	return slog.New(slog.NewJSONHandler(stderr, o))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// plural counts things.
func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	if strings.HasSuffix(one, "y") {
		return fmt.Sprintf("%d %sies", n, strings.TrimSuffix(one, "y"))
	}
	return fmt.Sprintf("%d %ss", n, one)
}

func orDash(s string) string { return cmp.Or(s, "-") }
