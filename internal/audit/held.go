package audit

import (
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Held is an event that a destination holds.
type Held struct {
	UID   string // of the entry; empty for a line that is no event of a relay
	Time  int64  // Unix seconds: the entry's own time
	Times int    // how often the destination holds it
}

// ReadHeld reads what identifies an event that was written in either format. Its UID
// is empty if the text is no such event.
func ReadHeld(text []byte) Held {
	var e struct {
		UID       string `json:"UID"`
		EventTime string `json:"eventTime"`
		Metadata  struct {
			UID string `json:"uid"`
		} `json:"metadata"`
		Time int64 `json:"time"` // milliseconds
	}
	if err := json.Unmarshal(text, &e, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
		return Held{}
	}
	switch {
	case e.UID == "" && e.Metadata.UID == "":
		return Held{}
	case e.UID == "":
		return Held{UID: e.Metadata.UID, Time: e.Time / 1000, Times: 1}
	}
	at, err := time.Parse(time.RFC3339, e.EventTime)
	if err != nil {
		return Held{}
	}
	return Held{UID: e.UID, Time: at.Unix(), Times: 1}
}
