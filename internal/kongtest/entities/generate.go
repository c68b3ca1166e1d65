package entities

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Step is what happens next: after a pause, edits that are made at the same time.
type Step struct {
	Pause time.Duration
	Edits []Edit // without RequestID and Time
}

// Generator makes random edits of a world: creates, updates, renames and deletes in
// three workspaces, some of them at once, of entities that are sometimes large and often
// hold secrets; also reads, and edits that Kong refuses. Others may edit the world as well.
type Generator struct {
	// LargeEvery is after how many edits one makes an entity of 200 kB; 150 by default.
	LargeEvery int

	rand    *rand.Rand
	world   *World
	made    int
	recent  []string // ids of entities that were touched
	secrets []Secret
}

// NewGenerator returns a generator whose choices depend on the seed and the world.
func NewGenerator(w *World, seed uint64) *Generator {
	return &Generator{LargeEvery: 150, rand: rand.New(rand.NewPCG(seed, 14)), world: w}
}

// Secrets returns the secrets in the edits so far.
func (g *Generator) Secrets() []Secret { return slices.Clone(g.secrets) }

// Next returns the next step.
func (g *Generator) Next() Step {
	s := Step{Pause: g.pause()}
	n := 1
	if g.rand.IntN(10) == 0 {
		n += 1 + g.rand.IntN(3)
	}
	for range n {
		s.Edits = append(s.Edits, g.edit())
	}
	return s
}

func (g *Generator) pause() time.Duration {
	between := func(least, most time.Duration) time.Duration {
		return least + time.Duration(g.rand.Int64N(int64(most-least)))
	}
	switch n := g.rand.IntN(100); {
	case n < 45:
		return between(2*time.Second, 6*time.Second)
	case n < 85:
		return between(10*time.Millisecond, 900*time.Millisecond)
	case n < 95:
		return 0
	default:
		return between(10*time.Second, time.Minute)
	}
}

// teams are the workspaces beside the default one.
var teams = []string{"payments", "orders-team"}

func (g *Generator) edit() Edit {
	g.made++
	if g.made <= len(teams) {
		return Edit{Method: http.MethodPost, Path: "/workspaces", Body: map[string]any{"name": teams[g.made-1]}}
	}
	e := g.pick()
	switch n := g.rand.IntN(100); {
	case e == nil || n < 30:
		return g.create()
	case n < 36:
		return Edit{Method: http.MethodGet, Path: g.path(e)}
	case n < 39: // refused
		return []Edit{
			{Method: http.MethodPatch, Path: "/services/" + UUID(), Body: map[string]any{"host": "none"}},
			{Method: http.MethodPost, Path: "/routes", Body: map[string]any{"service": map[string]any{"id": UUID()}}},
			{Method: http.MethodDelete, Path: "/consumers/" + UUID()}, // 204, and nothing is deleted
		}[g.rand.IntN(3)]
	case n < 50:
		return Edit{Method: http.MethodDelete, Path: g.path(e)}
	case n < 56 && e.name() != "":
		return Edit{Method: http.MethodPatch, Path: g.path(e), Body: map[string]any{e.kind.name: g.word(e.kind.path)}}
	case n < 62:
		return Edit{Method: http.MethodPut, Path: g.path(e), Body: g.fields(e.kind.path, e.plugin(), 4)}
	default:
		return Edit{Method: http.MethodPatch, Path: g.path(e), Body: g.fields(e.kind.path, e.plugin(), 1+g.rand.IntN(3))}
	}
}

// pick returns an entity to edit, often one that was edited lately, or nil.
func (g *Generator) pick() *entity {
	g.world.mu.Lock()
	defer g.world.mu.Unlock()
	var e *entity
	if n := len(g.recent); n > 0 && g.rand.IntN(3) == 0 {
		e = g.world.byID[g.recent[n-1-g.rand.IntN(min(n, 5))]]
	}
	if n := len(g.world.entities); e == nil && n > 0 {
		e = g.world.entities[g.rand.IntN(n)]
	}
	if e == nil || e.kind.path == "workspaces" {
		return nil
	}
	g.recent = append(g.recent, e.id())
	return new(*e)
}

// prefix returns how paths within a workspace begin: with nothing for the default one.
func (w *World) prefix(workspace string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.byID[workspace]; e != nil {
		return "/" + e.name()
	}
	return ""
}

// path addresses an entity, by name as often as by id.
func (g *Generator) path(e *entity) string {
	key := e.id()
	if e.name() != "" && !e.kind.secret && e.kind.path != "plugins" && g.rand.IntN(2) == 0 {
		key = e.name()
	}
	return g.world.prefix(e.workspace) + "/" + e.kind.path + "/" + key
}

// plugin returns which plugin an entity configures, or "".
func (e *entity) plugin() string {
	name, _ := e.fields["name"].(string)
	if e.kind.path != "plugins" {
		return ""
	}
	return name
}

// create makes a new entity, below another one where its kind needs that.
func (g *Generator) create() Edit {
	k := kinds[g.rand.IntN(len(kinds))]
	if n := g.rand.IntN(10); n < 5 { // what people edit most
		k, _ = kindAt([]string{"services", "routes", "plugins", "consumers"}[n%4])
	}
	if k.path == "workspaces" {
		k, _ = kindAt("services")
	}
	e := Edit{Method: http.MethodPost}
	plugin := ""
	if k.path == "plugins" {
		plugin = plugins[g.rand.IntN(len(plugins))]
	}
	e.Body = g.fields(k.path, plugin, 4)
	if plugin != "" {
		e.Body["name"] = plugin
	} else if k.name != "" {
		if _, ok := e.Body[k.name]; !ok {
			e.Body[k.name] = g.word(k.path)
		}
	}
	e.Path = []string{"", "/" + teams[0], "/" + teams[1]}[g.rand.IntN(3)]
	if k.global {
		e.Path = ""
	}
	if len(k.refs) > 0 && k.path != "admins" && (g.rand.IntN(4) > 0 || k.refs[0].dao == "consumers" || k.refs[0].dao == "upstreams") {
		if p := g.parent(k); p != nil {
			e.Path = g.world.prefix(p.workspace) + "/" + p.kind.path + "/" + p.id()
		}
	}
	e.Path += "/" + k.path
	return e
}

// parent returns an entity to which one of that kind can belong, or nil.
func (g *Generator) parent(k kind) *entity {
	g.world.mu.Lock()
	defer g.world.mu.Unlock()
	of := k.refs[g.rand.IntN(len(k.refs))].dao
	if of == "certificates" && k.path != "snis" {
		return nil
	}
	var among []*entity
	for _, e := range g.world.entities {
		if e.kind.dao == of {
			among = append(among, e)
		}
	}
	if len(among) == 0 {
		return nil
	}
	return new(*among[g.rand.IntN(len(among))])
}

// plugins are those that have places for secrets, and one that has none.
var plugins = func() []string {
	names := []string{"correlation-id"}
	for _, p := range places {
		if p.plugin != "" && !slices.Contains(names, p.plugin) {
			names = append(names, p.plugin)
		}
	}
	return names
}()

func (g *Generator) word(path string) string {
	return fmt.Sprintf("%s-%d", strings.ReplaceAll(strings.TrimSuffix(path, "s"), "/", "-"), g.rand.IntN(100_000))
}

// fields makes some fields of an entity of that kind, often with a secret.
func (g *Generator) fields(path, plugin string, n int) map[string]any {
	fields := map[string]any{}
	may := plain[path]
	for i := 0; i < n && len(may) > 0; i++ {
		f := may[g.rand.IntN(len(may))]
		put(fields, f.name, f.value(g.rand))
	}
	if g.rand.IntN(6) == 0 {
		fields["tags"] = []any{"team-" + RandomID(g.rand.IntN)[:4], "prod/eu"}[:1+g.rand.IntN(2)]
	}
	if g.LargeEvery > 0 && g.made%g.LargeEvery == 0 && path != "workspaces" {
		fields["tags"] = []any{strings.Repeat(RandomID(g.rand.IntN), 200_000/32)}
	}
	if g.rand.IntN(2) == 0 {
		g.plant(fields, path, plugin)
	}
	return fields
}

// plant puts a new secret into the fields, if entities of that kind hold any.
func (g *Generator) plant(fields map[string]any, path, plugin string) {
	var of []place
	for _, p := range places {
		if p.path == path && p.plugin == plugin {
			of = append(of, p)
		}
	}
	if len(of) == 0 {
		return
	}
	p := of[g.rand.IntN(len(of))]
	value, secret := p.value(g.rand)
	put(fields, p.field, value)
	g.secrets = append(g.secrets, secret)
}

// plainField is a field that holds nothing secret.
type plainField struct {
	name  string
	value func(r *rand.Rand) any
}

func number(most int) func(*rand.Rand) any {
	return func(r *rand.Rand) any { return float64(r.IntN(most)) }
}

func phrase(format string) func(*rand.Rand) any {
	return func(r *rand.Rand) any { return fmt.Sprintf(format, r.IntN(1000)) }
}

func truth(r *rand.Rand) any { return r.IntN(2) == 0 }

func list(formats ...string) func(*rand.Rand) any {
	return func(r *rand.Rand) any {
		l := []any{}
		for range r.IntN(4) {
			l = append(l, fmt.Sprintf(formats[r.IntN(len(formats))], r.IntN(100)))
		}
		return l
	}
}

var plain = map[string][]plainField{
	"services":        {{"host", phrase("h%d.internal")}, {"path", phrase("/v%d")}, {"retries", number(10)}, {"port", number(65_536)}, {"enabled", truth}, {"host", phrase("zürich-%d ✓")}},
	"routes":          {{"paths", list("/a/%d", "/b~%d/x")}, {"hosts", list("api%d.example")}, {"strip_path", truth}, {"methods", list("GET%d")}, {"headers", func(r *rand.Rand) any { return map[string]any{"x-team": []any{phrase("t%d")(r)}} }}},
	"consumers":       {{"custom_id", phrase("c-%d")}},
	"plugins":         {{"enabled", truth}, {"config.minute", number(1000)}, {"config.hide_groups_header", truth}, {"config.scopes", list("s%d")}, {"config.limits.hour", number(5000)}},
	"upstreams":       {{"slots", number(65_536)}, {"hash_on_header", phrase("x-h%d")}, {"healthchecks.threshold", number(100)}},
	"targets":         {{"weight", number(1000)}},
	"certificates":    {{"cert", phrase("-----BEGIN CERTIFICATE-----\nMIIB%dAgECAgEB\n-----END CERTIFICATE-----\n")}},
	"ca_certificates": {{"cert", phrase("-----BEGIN CERTIFICATE-----\nMIIC%dAgECAgEB\n-----END CERTIFICATE-----\n")}},
	"jwt":             {{"rsa_public_key", phrase("-----BEGIN PUBLIC KEY-----\nMFww%d\n-----END PUBLIC KEY-----\n")}},
	"oauth2":          {{"redirect_uris", list("https://app%d.example/back")}},
	"rbac/users":      {{"comment", phrase("user %d")}, {"enabled", truth}},
	"rbac/roles":      {{"comment", phrase("role %d")}},
	"admins":          {{"email", phrase("a%d@example.com")}},
	"vaults":          {{"description", phrase("vault %d")}, {"config.host", phrase("v%d.internal")}},
	"event-hooks":     {{"event", phrase("e%d")}, {"source", phrase("crud%d")}},
	"keys":            {{"kid", phrase("kid-%d")}},
}
