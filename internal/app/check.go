package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/delivery"
	"github.com/kong-cloudtrail/relay/internal/kongadmin"
	"github.com/kong-cloudtrail/relay/internal/secret"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// Hints for errors that have none: mostly the network.
const (
	kongHint   = "make KONG_ADMIN_API the Admin API itself (port 8001 or 8444) with nothing in between, and try curl from here"
	ledgerHint = "look into Redis's log, and check REDIS_HOST"
	awsHint    = "make the service's endpoint in that Region reachable from here over HTTPS (CloudTrail Lake has no VPC endpoint); " +
		"correct AWS_ENDPOINT_URL and its kind where they are set"
	fileHint = "look at the file's folder: its space, its rights, and whether its disk can be written to"
	codeHint = "the destination does not take these events: look up its code, and at the permissions and settings of what receives them"
)

// CheckWithin bounds each check. For Kong the timeout of a page comes on top.
const CheckWithin = 20 * time.Second

// Check is a test of a connection or permission before the relay runs.
type Check struct {
	Name   string
	Within time.Duration // bounds it
	Hint   string        // for an error that has none
	// Run returns what it found, for a person.
	Run func(ctx context.Context) (string, error)
}

// Checks returns a check of every connection and permission.
func (a *App) Checks() []Check {
	kind := &a.kind
	checks := []Check{
		{"kong", a.Settings.KongTimeout + CheckWithin, kongHint, a.checkKong},
		{"ledger", a.Settings.KongTimeout + CheckWithin, ledgerHint, a.checkLedger},
		{"destination", CheckWithin, kind.hint, a.checkDestination},
	}
	if a.Settings.Objects {
		checks = slices.Insert(checks, 1, Check{"objects", a.Settings.KongTimeout + CheckWithin, kongHint, a.checkObjects})
	}
	if kind.checkQueries != nil && kind.checkQueries(&a.Settings) {
		checks = append(checks, Check{"queries", CheckWithin, kind.hint, a.checkQueries})
	}
	return checks
}

func (a *App) checkKong(ctx context.Context) (string, error) {
	p, err := a.Kong.Page(ctx, audit.Query{Size: 1})
	if err != nil {
		return "", err
	}
	v := a.Kong.Version(ctx)
	if v == "" {
		v = "of unknown version"
	}
	found := fmt.Sprintf("audit log of Kong %s can be read", v)
	if !p.Date.IsZero() {
		if off := time.Since(p.Date).Round(time.Second); off.Abs() > 5*time.Second {
			found += fmt.Sprintf("; its clock differs from this machine's by %s", off)
		}
	}
	return found, nil
}

func (a *App) checkObjects(ctx context.Context) (string, error) {
	if _, err := a.Kong.Objects().Page(ctx, audit.Query{Size: 1}); err != nil {
		return "", err
	}
	return "what requests changed can be read", nil
}

func (a *App) checkLedger(ctx context.Context) (string, error) {
	if err := a.Store.Ping(ctx); err != nil {
		return "", a.ExplainLedger(err)
	}
	warnings, err := a.CheckLedger(ctx)
	if err != nil {
		return "", err
	}
	if err := a.bind(ctx); err != nil {
		return "", err
	}
	return strings.Join(append([]string{"answers"}, warnings...), "; ") + ", and is this Kong's", nil
}

func (a *App) checkDestination(ctx context.Context) (string, error) {
	found := string(a.Settings.Destination) + " accepts puts"
	if a.kind.caveat != "" {
		found += "; " + a.kind.caveat
	}
	d := &a.destination
	if err := d.check(ctx); err != nil || d.inspect == nil {
		return found, err
	}
	return strings.Join(append([]string{found}, d.inspect(ctx)...), "; "), nil
}

// checkQueries asks the destination for the events of a second in which there are none.
func (a *App) checkQueries(ctx context.Context) (string, error) {
	h, err := a.Holdings(ctx)
	if err != nil {
		return "", err
	}
	for _, err := range h.Events(ctx, audit.MinEventTime, audit.MinEventTime+1) {
		if err != nil {
			return "", err
		}
	}
	return "relay verify can ask " + h.Name, nil
}

// CheckTrigger returns a check of the way from Kong to a relay that serves at an address. It
// needs no setting but the trigger secret, so that it can be made where Kong runs, and beside
// a relay whose ledger is a file.
func CheckTrigger(s config.Settings, relay string) Check {
	return Check{"trigger", CheckWithin, "", func(ctx context.Context) (string, error) { return sendTrigger(ctx, s.TriggerSecret, relay) }}
}

// sendTrigger sends a trigger without ids, which asks for a poll.
func sendTrigger(ctx context.Context, secret secret.Secret, relay string) (string, error) {
	secrets, err := secret.Reveal(ctx)
	if err != nil {
		return "", audit.NewSettingsError(err, "make RELAY_TRIGGER_SECRET readable here")
	}
	o := trigger.ClientOptions{URL: relay, Delivery: trigger.Delivery{Timeout: 5 * time.Second, Retries: -1}}
	if list := config.SplitSecrets(secrets); len(list) > 0 {
		o.Secret = list[0]
	}
	client, err := trigger.NewClient(o)
	if err != nil {
		return "", audit.NewSettingsError(err, "give --trigger the relay's address as Kong has it, http(s)://host:port, and the secret in RELAY_TRIGGER_SECRET")
	}
	defer client.Close()
	if err := client.Notify(ctx, nil); err != nil {
		return "", audit.WithHint(err, trigger.Advice(err))
	}
	if o.Secret == "" {
		return "the relay accepted a trigger (202), without a signature", nil
	}
	return "the relay accepted a signed trigger (202)", nil
}

// PluginHint says whether Kong has a plugin that triggers a relay. It is only a hint: the
// relay's user need not see plugins, and the route may be in another workspace.
func PluginHint(ctx context.Context, s config.Settings, log *slog.Logger) string {
	if s.KongAdminAPI == "" {
		return "Kong was not asked for its plugins: KONG_ADMIN_API is not set"
	}
	var list []kongadmin.Plugin
	a, err := Open(ctx, s, log, nil, config.NeedKong)
	if err == nil {
		list, err = a.Kong.Plugins(ctx)
	}
	if err != nil {
		return "Kong was not asked for its plugins, which the relay need not be allowed: " + err.Error()
	}
	var found []string
	for _, p := range list {
		if p.Name != "cloudtrail-relay" && (p.Name != "http-log" || !strings.HasSuffix(p.Endpoint, trigger.HTTPLogPath)) {
			continue // it triggers no relay
		}
		disabled := ""
		if !p.Enabled {
			disabled = " (not enabled)"
		}
		found = append(found, p.Name+disabled+" sends to "+p.Endpoint)
	}
	if len(found) == 0 {
		return "no plugin of Kong's default workspace triggers a relay: entries wait for the schedule, unless the route is elsewhere (kong/README.md)"
	}
	return "in Kong, " + strings.Join(found, ", and ")
}

// Explain adds a hint to an error of a pass.
func Explain(err error) error {
	switch {
	case errors.Is(err, audit.ErrLeaseHeld):
		return audit.WithHint(err, "wait for the other relay on this source and destination, which makes another pass after its own, "+
			"give --lease-wait more time, or stop that relay")
	case errors.Is(err, audit.ErrLeaseLost):
		return audit.WithHint(err, "run again, nothing is lost: another relay took over, or the ledger could not be reached for longer than the lease")
	case errors.Is(err, delivery.ErrUnavailable) && audit.Hint(err) != "": // it names what is in the way
		return audit.WithHint(err, audit.Hint(err)+"; nothing is lost, and the next pass goes on")
	case errors.Is(err, delivery.ErrUnavailable):
		return audit.WithHint(err, "run again once the destination answers, which relay check shows: nothing is lost, and no entry became a dead letter")
	}
	return err
}

// ErrorAttrs returns the attributes of an error for the log, with its hint if there is one.
func ErrorAttrs(err error) []any {
	if hint := audit.Hint(err); hint != "" {
		return []any{"err", err, "hint", hint}
	}
	return []any{"err", err}
}
