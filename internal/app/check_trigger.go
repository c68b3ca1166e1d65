package app

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/kongadmin"
	"github.com/kong-cloudtrail/relay/internal/secret"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// CheckTrigger returns checks of the way from Kong to a relay that serves at an address.
// They need no setting but the trigger secret, so that they can be made where Kong runs,
// and beside a relay whose ledger is a file.
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
	a := &App{Settings: s, Log: log}
	err := a.openKong()
	var list []kongadmin.Plugin
	if err == nil {
		list, err = a.Kong.Plugins(ctx)
	}
	if err != nil {
		return "Kong was not asked for its plugins, which the relay need not be allowed: " + err.Error()
	}
	var found []string
	for _, p := range list {
		if isTrigger(p) {
			found = append(found, p.Name+disabled(p)+" sends to "+p.Endpoint)
		}
	}
	if len(found) == 0 {
		return "no plugin of Kong's default workspace triggers a relay: entries wait for the schedule, unless the route is elsewhere (kong/README.md)"
	}
	return "in Kong, " + strings.Join(found, ", and ")
}

// isTrigger reports whether a plugin triggers a relay: this project's, or http-log.
func isTrigger(p kongadmin.Plugin) bool {
	return p.Name == "cloudtrail-relay" || p.Name == "http-log" && strings.HasSuffix(p.Endpoint, trigger.HTTPLogPath)
}

func disabled(p kongadmin.Plugin) string {
	if p.Enabled {
		return ""
	}
	return " (not enabled)"
}
