// Command emulator is the emulators as one program, for the local stack: an
// Admin API with an audit log, CloudWatch Logs with a page that shows what arrived,
// and CloudTrail Lake. It is for development only, and protects nothing.
//
// With --upstream it stands before the Admin API of an open source Kong, which
// has no audit log: it passes requests on and records them as Kong Enterprise
// would. Without, it answers as an Admin API itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/cloudwatchtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
)

// stopWithin is what requests have to end by themselves once the program is told to stop.
const stopWithin = 5 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Getenv, os.Stderr)
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2) // the flags have said why
	default:
		fmt.Fprintln(os.Stderr, "emulator:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("wrong usage")

// settings are flags, and variables of the same name with EMULATOR_ before it.
type settings struct {
	adminListen, awsListen string
	upstream, token        string
	relayPage              string
	rowDelay, rowDelayMax  time.Duration
	logLevel               slog.Level
	health                 bool
}

func parse(args []string, getenv func(string) string, stderr io.Writer) (settings, error) {
	var s settings
	f := flag.NewFlagSet("emulator", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&s.adminListen, "admin-listen", "127.0.0.1:8001", "`host:port` of the Admin API, or off")
	f.StringVar(&s.awsListen, "aws-listen", "127.0.0.1:8010", "`host:port` of CloudWatch Logs and CloudTrail Lake, the page and /healthz")
	f.StringVar(&s.upstream, "upstream", "", "`URL` of the Admin API to stand before; none: answer as one")
	f.StringVar(&s.relayPage, "relay-page", "", "`URL` of the relay's own page, to which CloudTrail Lake's page has a link")
	f.StringVar(&s.token, "token", "", "turn RBAC on, with this `token` for a user called admin")
	f.DurationVar(&s.rowDelay, "row-delay", 100*time.Millisecond, "least `time` from an answer to its row in the audit log")
	f.DurationVar(&s.rowDelayMax, "row-delay-max", 300*time.Millisecond, "greatest `time` from an answer to its row")
	f.TextVar(&s.logLevel, "log-level", slog.LevelInfo, "debug, info, warn or error: the `level`")
	f.BoolVar(&s.health, "health", false, "ask the emulator at --aws-listen whether it is alive, and exit")
	var err error
	f.VisitAll(func(fl *flag.Flag) {
		name := "EMULATOR_" + strings.ToUpper(strings.ReplaceAll(fl.Name, "-", "_"))
		value := strings.TrimSpace(getenv(name))
		if value == "" || fl.Name == "health" || err != nil {
			return
		}
		if e := fl.Value.Set(value); e != nil {
			err = fmt.Errorf("%s: %w", name, e)
		}
	})
	if err != nil {
		fmt.Fprintln(stderr, "emulator:", err)
		return s, errUsage
	}
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return s, err
		}
		return s, errUsage
	}
	if f.NArg() > 0 {
		fmt.Fprintf(stderr, "emulator: %q is not a flag: flags begin with --\n", f.Arg(0))
		return s, errUsage
	}
	for name, address := range map[string]string{"admin-listen": s.adminListen, "aws-listen": s.awsListen} {
		if _, _, err := net.SplitHostPort(address); err != nil && (name != "admin-listen" || address != "off") {
			fmt.Fprintf(stderr, "emulator: --%s: %v\n", name, err)
			return s, errUsage
		}
	}
	return s, nil
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, getenv func(string) string, stderr io.Writer) error {
	s, err := parse(args, getenv, stderr)
	if err != nil {
		return err
	}
	if s.health {
		return health(ctx, s.awsListen)
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: s.logLevel}))
	kong, err := newKong(s, log)
	if err != nil {
		fmt.Fprintln(stderr, "emulator: --upstream:", err)
		return errUsage
	}
	logs, trail := cloudwatchtest.New(cloudwatchtest.Options{}), cloudtrailtest.New(cloudtrailtest.Options{})
	if s.relayPage != "" {
		logs.LinkRelay(s.relayPage)
	}

	group, ctx := errgroup.WithContext(ctx)
	err = serve(ctx, group, log, "aws", s.awsListen, withHealth(awsOf(logs, trail)))
	if err == nil && s.adminListen != "off" {
		err = serve(ctx, group, log, "admin", s.adminListen, kong)
	}
	if err != nil {
		group.Go(func() error { return err }) // ends what runs by then
	}
	err = group.Wait()
	err = errors.Join(err, kong.Close()) // rows that are late are written
	log.Info("stopped", "rows", kong.Len(), "events", logs.Counts().Distinct+trail.Counts().Distinct)
	return err
}

func newKong(s settings, log *slog.Logger) (*kongtest.Server, error) {
	o := kongtest.Options{Token: s.token, RowDelay: s.rowDelay, RowDelayMax: s.rowDelayMax, Answered: logged(log)}
	if s.upstream == "" {
		return kongtest.New(o), nil
	}
	return kongtest.NewRecorder(s.upstream, o)
}

// serve listens at an address until ctx ends. Requests may end by themselves.
func serve(ctx context.Context, group *errgroup.Group, log *slog.Logger, name, address string, handler http.Handler) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listening for %s: %w", name, err)
	}
	log.Info("listening", "name", name, "addr", l.Addr().String())
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	group.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving %s: %w", name, err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
		defer cancel()
		err := server.Shutdown(stop)
		if errors.Is(err, context.DeadlineExceeded) {
			log.Warn("requests cut", "name", name)
			err = server.Close()
		}
		return err
	})
	return nil
}
