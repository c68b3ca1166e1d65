package redisledger

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisconn"
)

//go:embed lua
var sources embed.FS

var (
	acquireScript     = script("acquire")
	beginScript       = script("begin")
	bindScript        = script("bind")
	lookupScript      = script("lookup")
	nonceScript       = script("nonce")
	noteScript        = script("note")
	outageScript      = script("outage")
	recallScript      = script("recall")
	recordScript      = script("record")
	releaseScript     = script("release")
	rememberScript    = script("remember")
	renewScript       = script("renew")
	setMarksScript    = script("setmarks")
	splitScript       = script("split")
	tryScript         = script("try")
	undeliveredScript = script("undelivered")
)

// script returns the script of a file in lua, behind the functions of guard.lua.
func script(name string) *redis.Script { return redis.NewScript(source("guard") + source(name)) }

func source(name string) string {
	text, err := sources.ReadFile("lua/" + name + ".lua")
	if err != nil {
		panic(err) // the file is not embedded
	}
	return string(text)
}

// First words of the scripts' answers.
const (
	answerOK      = "ok"
	changedLayout = "layout"
	otherKong     = "foreign" // bound to another Kong
)

// failures are the errors that other first words stand for.
var failures = map[string]error{
	"replaced": audit.ErrLedgerReplaced,
	"older":    audit.ErrLedgerOlder,
	"lost":     audit.ErrLeaseLost,
	"changed":  audit.ErrMemoryChanged,
}

var errAnswer = audit.WithHint(errors.New("answer that the script does not give"), redisconn.KeysHint)

// foreign is the error for what cannot be decoded. It is not [Ledger.wrap]'s, which takes a text
// that is cut short for a connection that was.
func (r *Ledger) foreign(doing string, err error) error {
	return audit.SettingsErrorf(redisconn.KeysHint, "%s: redis at %s: they are not what a relay writes: %w", doing, r.client.Where, err)
}

// run runs a script that checks the ledger's generation and sequence, which are its first two
// arguments: run fills them in. It returns the first word of the answer and what follows. If
// the word is "ok", a sequence comes after it, which run notes and leaves out.
func (r *Ledger) run(ctx context.Context, doing string, script *redis.Script, keys []string, args []any) (word string, rest []any, err error) {
	known, seen := r.pin.Get()
	args[0], args[1] = known, seen
	answer, err := script.Run(ctx, r.client, keys, args...).Slice()
	if err != nil {
		return "", nil, r.wrap(doing, err)
	}
	if len(answer) < 2 {
		answer = append(answer, nil, nil)
	}
	word, _ = answer[0].(string)
	if err := failures[word]; err != nil {
		return "", nil, fmt.Errorf("%s: %w", doing, err)
	}
	if word == changedLayout || word == otherKong {
		return word, answer[1:], nil
	}
	sequence, err := number(answer[1])
	if word != answerOK || err != nil {
		return "", nil, r.wrap(doing, errAnswer)
	}
	r.pin.Saw(known, sequence)
	return word, answer[2:], nil
}

// number returns a number that Redis keeps as a text.
func number(v any) (int64, error) { return strconv.ParseInt(fmt.Sprint(v), 10, 64) }
