package cloudtrailtest

import (
	"errors"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// errJSON is all that is said about malformed text: never what it holds.
var errJSON = errors.New("not valid JSON")

// jsonOptions take what Kong may have recorded inside a payload: half of a surrogate
// pair, and names that are there twice. Bytes that are not UTF-8 are refused apart.
var jsonOptions = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

// object reads an object. member is called with each name, and reads the value.
func object(d *jsontext.Decoder, member func(name string) error) error {
	if d.PeekKind() != '{' {
		return errJSON
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return err
		}
		if err := member(name.String()); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

// end reports whether nothing but white space is left.
func end(d *jsontext.Decoder) error {
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return errJSON
	}
	return nil
}
