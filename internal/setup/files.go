package setup

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/kong"
)

// Names of the files.
const (
	relayEnv   = "relay.env"
	kongEnv    = "kong.env"
	kongYML    = "kong.yml"
	kongUser   = "kong-user.sh"
	policyJSON = "iam-policy.json"
)

// Files returns the files of a plan that is complete.
func (p *Plan) Files() ([]File, error) {
	env, err := p.relayEnv()
	if err != nil {
		return nil, err
	}
	files := []File{{relayEnv, "the relay's settings, with secrets", 0o600, env}}
	if secret := config.SplitSecrets(p.Variables["RELAY_TRIGGER_SECRET"]); len(secret) > 0 {
		files = append(files, File{kongEnv, "the trigger secret, for the environment of Kong", 0o600, "# For the environment of the Kong node that has the route. The plugin's own process does not need it.\n" +
			"CLOUDTRAIL_RELAY_SECRET=" + secret[0] + "\n"})
	}
	declaration, err := p.declaration()
	if err != nil {
		return nil, err
	}
	files = append(files, File{kongYML, "the Route to the Admin API, with the plugin on it", 0o644, declaration})
	if p.newUser {
		files = append(files, File{kongUser, "makes the user that the relay reads the audit log as", 0o644, p.userScript()})
	}
	if policy, err := p.policy(); err != nil {
		return nil, err
	} else if policy != "" {
		files = append(files, File{policyJSON, "what the relay needs in AWS", 0o644, policy})
	}
	return files, nil
}

// relayEnv returns the variables in the form that systemd, Docker and a shell read alike.
func (p *Plan) relayEnv() (string, error) {
	var b strings.Builder
	b.WriteString("# For systemd (EnvironmentFile=), docker run --env-file, or a shell: set -a; . ./" + relayEnv + "; set +a\n" +
		"# It holds secrets. AWS credentials come from the usual places.\n")
	for _, name := range config.Variables() {
		value := p.Variables[name]
		switch {
		case value == "":
			continue
		case strings.ContainsAny(value, " \t\r\n\"'\\$`;&|<>()*?[]~!"):
			return "", config.Usagef("%s has characters that systemd, Docker and a shell read differently: give it in a file, "+
				"if it is a certificate by its path, or set it where the relay runs", name)
		}
		fmt.Fprintf(&b, "%s=%s\n", name, value)
	}
	return b.String(), nil
}

// declaration returns kong.yml with the addresses of the plan.
func (p *Plan) declaration() (string, error) {
	text := kong.Declaration
	for _, line := range [][2]string{
		{"deck gateway apply kong/kong.yml", "deck gateway apply " + kongYML},
		{"url: http://127.0.0.1:8001\n", "url: " + cmp.Or(p.AdminURL, "http://127.0.0.1:8001") + "\n"},
		{"relay_url: http://relay:8080\n", "relay_url: " + p.RelayURL + "\n"},
	} {
		if strings.Count(text, line[0]) != 1 {
			return "", fmt.Errorf("kong.yml has not exactly one %q", line[0])
		}
		text = strings.Replace(text, line[0], line[1], 1)
	}
	return text, nil
}

// userScript returns the commands that make the RBAC user.
func (p *Plan) userScript() string {
	ca := ""
	if path := p.Variables["KONG_ROOT_CA"]; path != "" {
		ca = " --cacert " + path
	}
	return `#!/bin/sh
# Makes the user that the relay reads Kong's audit log as, who may do nothing else.
# It takes the user's token from ` + relayEnv + ` beside it, and a super admin's from SUPER:
#   SUPER=<token> sh ` + kongUser + `
set -eu
: "${SUPER:?set SUPER to the token of a super admin}"
admin=` + strings.TrimSuffix(p.Variables["KONG_ADMIN_API"], "/") + `/default/rbac
token=$(sed -n 's/^KONG_ADMIN_TOKEN=//p' "$(dirname "$0")/` + relayEnv + `")
ask() { printf 'header = "Kong-Admin-Token: %s"\n' "$SUPER" | curl -fsS -o /dev/null` + ca + ` -K - "$@"; }

ask "$admin/roles" -d name=audit-reader
for endpoint in /audit/requests /audit/objects /; do
  ask "$admin/roles/audit-reader/endpoints" -d workspace=default -d "endpoint=$endpoint" -d actions=read
done
ask "$admin/users" -d name=audit-relay -d "user_token=$token"
ask "$admin/users/audit-relay/roles" -d roles=audit-reader
echo "The user audit-relay may read the audit log."
`
}

// statement is one of an IAM policy.
type statement struct {
	Sid      string
	Effect   string
	Action   []string
	Resource []string
}

// policy returns the IAM policy of the relay, or "" if it needs none.
func (p *Plan) policy() (string, error) {
	var list []statement
	allow := func(sid string, resource string, actions ...string) {
		list = append(list, statement{sid, "Allow", actions, []string{resource}})
	}
	for _, permission := range p.settings.Permissions() {
		allow(permission.Name, permission.Resource, permission.Actions...)
	}
	for _, name := range config.Variables() {
		if secret := p.Variables[name]; strings.HasSuffix(name, "_SECRET_ARN") && secret != "" {
			id, _, _ := strings.Cut(secret, "#")
			allow(fmt.Sprintf("ReadSecret%d", len(list)), id, "secretsmanager:GetSecretValue")
		}
	}
	if len(list) == 0 {
		return "", nil
	}
	text, err := json.Marshal(struct {
		Version   string
		Statement []statement
	}{"2012-10-17", list}, jsontext.WithIndent("  "))
	return string(text) + "\n", err
}
