package cloudwatchtest

import (
	"cmp"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	pageChanges = 5  // changes that the page shows of an event
	pageFields  = 6  // fields that it shows of a change
	pageValue   = 90 // bytes that it shows of a value
)

// pageChange is what a request did to an entity, as the table shows it.
type pageChange struct {
	What, Operation, History string
	Fields                   []pageField
	More                     int // fields that are not shown
}

type pageField struct{ Name, From, To string }

// changed is what an event says of changes, as the relay documents it.
type changed struct {
	ResponseElements struct {
		Changes []change `json:"changes"`
		Late    bool     `json:"late"`
	} `json:"responseElements"`
}

type change struct {
	Entity    string       `json:"entity"`
	Key       string       `json:"key"`
	Name      string       `json:"name"`
	Operation string       `json:"operation"`
	History   string       `json:"history"`
	From      []fieldValue `json:"from"`
	To        []fieldValue `json:"to"`
	Truncated int          `json:"truncated"`
}

type fieldValue struct {
	Path  string         `json:"path"`
	Value jsontext.Value `json:"value"`
}

// pageChangesOf reads what an event says of changes. What does not decode is not shown.
func pageChangesOf(event []byte) (list []pageChange, note string) {
	var c changed
	if json.Unmarshal(event, &c, lax...) != nil {
		return nil, ""
	}
	for _, one := range c.ResponseElements.Changes {
		if len(list) == pageChanges {
			note = "and more"
			break
		}
		p := pageChange{What: one.Entity + "/" + cmp.Or(one.Name, one.Key), Operation: one.Operation, More: one.Truncated}
		if one.History != "exact" {
			p.History = one.History
		}
		if one.Operation == "update" && one.History != "unavailable" {
			p.fields(one.From, one.To)
		}
		list = append(list, p)
	}
	if c.ResponseElements.Late {
		note = "late: not all of what it changed was known"
	}
	return list, note
}

func (p *pageChange) fields(from, to []fieldValue) {
	at := map[string]int{}
	add := func(path string) *pageField {
		if path == "/updated_at" {
			return nil
		}
		if i, ok := at[path]; ok {
			return &p.Fields[i]
		}
		if len(p.Fields) == pageFields {
			p.More++
			return nil
		}
		at[path] = len(p.Fields)
		p.Fields = append(p.Fields, pageField{Name: strings.NewReplacer("~1", "/", "~0", "~").Replace(strings.TrimPrefix(path, "/"))})
		return &p.Fields[len(p.Fields)-1]
	}
	for _, f := range from {
		if field := add(f.Path); field != nil {
			field.From = short(f.Value)
		}
	}
	for _, f := range to {
		if field := add(f.Path); field != nil {
			field.To = short(f.Value)
		}
	}
}

func short(v jsontext.Value) string {
	if s := string(v); len(s) <= pageValue {
		return s
	}
	return strings.ToValidUTF8(string(v[:pageValue]), "") + "…"
}
