package kong

import (
	"bytes"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// decode reads a YAML file into v and fails on a field that v does not have.
func decode(t *testing.T, file string, v any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// declaration is kong.yml.
type declaration struct {
	Version  string `yaml:"_format_version"`
	Services []struct {
		Name, URL string
		Tags      []string
		Routes    []struct {
			Name             string
			Paths, Protocols []string
			StripPath        bool `yaml:"strip_path"`
			Tags             []string
		}
		Plugins []struct {
			Name         string
			InstanceName string `yaml:"instance_name"`
			Tags         []string
			Config       struct {
				RelayURL    string `yaml:"relay_url"`
				Secret      string
				IgnorePaths []string `yaml:"ignore_paths"`
			}
		}
	}
}

// values is values.yaml, with the names that version 3.4.1 of the chart knows.
type values struct {
	FullnameOverride string `yaml:"fullnameOverride"`
	Image            struct{ Repository, Tag string }
	Enterprise       struct {
		Enabled       bool
		LicenseSecret string `yaml:"license_secret"`
	}
	IngressController struct{ Enabled bool } `yaml:"ingressController"`
	// A bool is what the chart refuses for the name of a log; it takes text.
	Env           map[string]yaml.Node
	CustomEnv     map[string]yaml.Node `yaml:"customEnv"`
	SecretVolumes []string             `yaml:"secretVolumes"`
	Admin         struct {
		Enabled   bool
		Type      string
		HTTP, TLS struct{ Enabled bool }
	}
	Deployment struct {
		SidecarContainers []struct {
			Name, Image     string
			Command         []string
			VolumeMounts    []mount `yaml:"volumeMounts"`
			Lifecycle       any
			Resources       any
			SecurityContext struct {
				ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
				AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
				RunAsUser                int   `yaml:"runAsUser"`
				RunAsGroup               int   `yaml:"runAsGroup"`
				RunAsNonRoot             bool  `yaml:"runAsNonRoot"`
				Capabilities             struct{ Drop []string }
			} `yaml:"securityContext"`
		} `yaml:"sidecarContainers"`
		UserDefinedVolumes []struct {
			Name     string
			EmptyDir map[string]string `yaml:"emptyDir"`
		} `yaml:"userDefinedVolumes"`
		UserDefinedVolumeMounts []mount `yaml:"userDefinedVolumeMounts"`
	}
}

type mount struct {
	Name      string
	MountPath string `yaml:"mountPath"`
}

func TestValues(t *testing.T) {
	var v values
	decode(t, "values.yaml", &v)
	if len(v.Deployment.SidecarContainers) != 1 || len(v.Deployment.UserDefinedVolumes) != 1 || len(v.Deployment.UserDefinedVolumeMounts) != 1 {
		t.Fatalf("not one sidecar with one volume: %+v", v.Deployment)
	}
	sidecar, volume, seen := v.Deployment.SidecarContainers[0], v.Deployment.UserDefinedVolumes[0], v.Deployment.UserDefinedVolumeMounts[0]
	if len(sidecar.Command) != 3 || len(sidecar.VolumeMounts) != 1 {
		t.Fatalf("sidecar %+v", sidecar)
	}
	// Kong, the plugin and the volume agree on the socket's folder, and Kong asks the plugin that runs.
	folder := sidecar.Command[2]
	if sidecar.VolumeMounts[0] != seen || seen != (mount{volume.Name, folder}) {
		t.Errorf("the plugin listens in %s; it mounts %v, Kong %v", folder, sidecar.VolumeMounts[0], seen)
	}
	for name, want := range map[string]string{
		"plugins":                                 "bundled,cloudtrail-relay",
		"pluginserver_names":                      "cloudtrail-relay",
		"pluginserver_cloudtrail_relay_socket":    path.Join(folder, "cloudtrail-relay.socket"),
		"pluginserver_cloudtrail_relay_query_cmd": strings.Join(sidecar.Command, " ") + " -dump",
		"audit_log":                               "on",
	} {
		if got := v.Env[name]; got.Value != want || got.Tag != "!!str" {
			t.Errorf("env.%s is %s %q, want the text %q", name, got.Tag, got.Value, want)
		}
	}
	if strings.HasPrefix(folder, "/kong_prefix") {
		t.Errorf("the socket lies in %s: Kong removes it when it starts", folder)
	}
	if path.Dir(sidecar.Command[0]) == "/usr/local/bin" {
		t.Errorf("Kong starts %s by itself, beside the sidecar", sidecar.Command[0])
	}
	if image := v.Image.Repository + ":" + v.Image.Tag; sidecar.Image != image {
		t.Errorf("the sidecar runs %s, Kong %s", sidecar.Image, image)
	}
	if s := sidecar.SecurityContext; s.RunAsUser != 1000 || !s.ReadOnlyRootFilesystem {
		t.Errorf("the sidecar runs as %+v; Kong runs as 1000", s)
	}
	if _, ok := v.CustomEnv["cloudtrail_relay_secret"]; !ok {
		t.Error("kong.yml refers to a variable that customEnv does not have")
	}
}

// TestIgnorePaths holds the plugin's filter to Kong's: what Kong does not record must not be announced.
func TestIgnorePaths(t *testing.T) {
	var d declaration
	decode(t, "kong.yml", &d)
	if len(d.Services) != 1 || len(d.Services[0].Plugins) != 1 || len(d.Services[0].Plugins[0].Config.IgnorePaths) != 1 {
		t.Fatalf("not one service with one plugin that ignores one expression: %+v", d)
	}
	pattern := d.Services[0].Plugins[0].Config.IgnorePaths[0]
	expr, err := regexp.Compile(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{"/audit/requests?size=1000": true, "/audit/objects": true, "/services": false, "/routes?name=audit": false} {
		if got := expr.MatchString(path); got != want {
			t.Errorf("%s matches %s: %t, want %t", pattern, path, got, want)
		}
	}
	for _, file := range []string{"kong.conf", "values.yaml", "../docker-compose.enterprise.yml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`(?im)audit_log_ignore_paths *[=:] *'?([^' \n]+)`).FindSubmatch(text)
		if m == nil || string(m[1]) != pattern {
			t.Errorf("%s ignores %q, kong.yml %q", file, m, pattern)
		}
	}
}

// TestLocalStack holds docker-compose.yml to what a plugin beside Kong needs: the
// program of the image, outside the folder from which Kong starts plugins by
// itself, and one folder for the socket.
func TestLocalStack(t *testing.T) {
	type service struct {
		Entrypoint  []string
		Environment map[string]string
		Volumes     []string
	}
	text, err := os.ReadFile("../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	var stack struct{ Services map[string]service }
	if err := yaml.Unmarshal(text, &stack); err != nil {
		t.Fatal(err)
	}
	plugin, kong := stack.Services["plugin"], stack.Services["kong"]
	if len(plugin.Entrypoint) != 3 {
		t.Fatalf("the plugin starts with %q", plugin.Entrypoint)
	}
	program, folder := plugin.Entrypoint[0], plugin.Entrypoint[2]
	if path.Dir(program) == "/usr/local/bin" {
		t.Errorf("Kong starts %s by itself, beside the plugin's container", program)
	}
	dockerfile, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"/out/bin/cloudtrail-relay " + program + "\n", "/out/run " + folder + "\n"} {
		if !strings.Contains(string(dockerfile), want) {
			t.Errorf("the Dockerfile does not copy %s", want)
		}
	}
	for name, want := range map[string]string{
		"KONG_PLUGINSERVER_CLOUDTRAIL_RELAY_SOCKET":    path.Join(folder, "cloudtrail-relay.socket"),
		"KONG_PLUGINSERVER_CLOUDTRAIL_RELAY_QUERY_CMD": strings.Join(plugin.Entrypoint, " ") + " -dump",
	} {
		if got := kong.Environment[name]; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if _, ok := kong.Environment["KONG_PLUGINSERVER_CLOUDTRAIL_RELAY_START_CMD"]; ok {
		t.Error("Kong starts a plugin as well")
	}
	if volume := "plugin:" + folder; !slices.Contains(plugin.Volumes, volume) || !slices.Contains(kong.Volumes, volume) {
		t.Errorf("the plugin mounts %v, Kong %v", plugin.Volumes, kong.Volumes)
	}
}
