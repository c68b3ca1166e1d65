package cloudwatchtest

import (
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	pageChanges = 5  // changes that the page shows of an event
	pageFields  = 6  // fields that it shows of a change
	pageValue   = 90 // bytes that it shows of a value
)

// change is what a request did to an entity, as the relay documents it.
type change struct {
	Entity, Key, Name, Operation, History string

	From, To  []fieldValue
	Truncated int // fields that are not shown

	Fields []pageField `json:"-"` // that are shown
}

type fieldValue struct {
	Path  string
	Value jsontext.Value
}

// pageField is a field as the table shows it, with its values before and after.
type pageField struct {
	Name   string
	Values [2]string
}

// pageChangesOf reads what an event says of changes. What does not decode is not shown.
func pageChangesOf(event []byte) (list []change, note string) {
	var c struct {
		ResponseElements struct {
			Changes []change
			Late    bool
		}
	}
	if json.Unmarshal(event, &c, json.JoinOptions(lax...), json.MatchCaseInsensitiveNames(true)) != nil {
		return nil, ""
	}
	list = c.ResponseElements.Changes
	switch {
	case c.ResponseElements.Late:
		note = "late: not all of what it changed was known"
	case len(list) > pageChanges:
		note = "and more"
	}
	list = list[:min(len(list), pageChanges)]
	for i := range list {
		if list[i].Operation == "update" && list[i].History != "unavailable" {
			list[i].pair()
		}
	}
	return list, note
}

// pair brings the values before and after together, field by field.
func (c *change) pair() {
	at := map[string]int{}
	for side, values := range [][]fieldValue{c.From, c.To} {
		for _, f := range values {
			i, ok := at[f.Path]
			switch {
			case f.Path == "/updated_at":
				continue
			case !ok && len(c.Fields) == pageFields:
				c.Truncated++
				continue
			case !ok:
				i = len(c.Fields)
				at[f.Path] = i
				c.Fields = append(c.Fields, pageField{Name: strings.NewReplacer("~1", "/", "~0", "~").Replace(strings.TrimPrefix(f.Path, "/"))})
			}
			c.Fields[i].Values[side] = short(f.Value)
		}
	}
}

func short(v jsontext.Value) string {
	if s := string(v); len(s) <= pageValue {
		return s
	}
	return strings.ToValidUTF8(string(v[:pageValue]), "") + "…"
}
