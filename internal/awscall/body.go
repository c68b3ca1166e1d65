package awscall

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/go-json-experiment/json/jsontext"
)

// WithBody returns an API option that sends body instead of the client's encoding of its
// input. The client would hold every event beside the body and grow the body from nothing,
// which is half of what a pass allocates. It still makes the rest of the call: address,
// query, headers, signature, answer. Once the call has returned, body is not read any more,
// even if the transport is still sending: the client closes the request's body when it has
// the head of the answer, and a closed body reads as if it had ended.
func WithBody(body []byte) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Serialize.Insert(withBody(body), "OperationSerializer", middleware.After)
	}
}

type withBody []byte

// ID implements [middleware.SerializeMiddleware].
func (withBody) ID() string { return "RelayBody" }

// HandleSerialize implements [middleware.SerializeMiddleware].
func (b withBody) HandleSerialize(ctx context.Context, in middleware.SerializeInput, next middleware.SerializeHandler) (middleware.SerializeOutput, middleware.Metadata, error) {
	req, ok := in.Request.(*smithyhttp.Request)
	if !ok {
		return middleware.SerializeOutput{}, middleware.Metadata{}, fmt.Errorf("request is a %T", in.Request)
	}
	req, err := req.SetStream(bytes.NewReader(b))
	if err != nil {
		return middleware.SerializeOutput{}, middleware.Metadata{}, err
	}
	in.Request = req
	// The client would copy the body once more to compute the hash that it signs.
	sum := sha256.Sum256(b)
	return next.HandleSerialize(v4.SetPayloadHash(ctx, hex.EncodeToString(sum[:])), in)
}

// WithAnswer returns an API option that has read decode the body of a success. The client
// would decode it into maps first and then into its output, and would accept anything as an
// answer. Its output is then the one for the answer {}. An error of read, or a success with
// another status than 200, counts as an answer that cannot be read.
func WithAnswer(read func(io.Reader) error) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Deserialize.Insert(withAnswer(read), "OperationDeserializer", middleware.After)
	}
}

type withAnswer func(io.Reader) error

// ID implements [middleware.DeserializeMiddleware].
func (withAnswer) ID() string { return "RelayAnswer" }

// HandleDeserialize implements [middleware.DeserializeMiddleware].
func (read withAnswer) HandleDeserialize(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
	out, metadata, err := next.HandleDeserialize(ctx, in)
	resp, ok := out.RawResponse.(*smithyhttp.Response)
	if err != nil || !ok || resp.StatusCode < 200 || resp.StatusCode > 299 {
		return out, metadata, err
	}
	if resp.StatusCode != http.StatusOK {
		return out, metadata, fmt.Errorf("status %d instead of 200", resp.StatusCode)
	}
	body := resp.Body // the client closes it
	resp.Body = struct {
		io.Reader
		io.Closer
	}{strings.NewReader("{}"), body}
	return out, metadata, read(body)
}

// AppendQuote appends text as a JSON string, as [jsontext.AppendQuote] does, in half of
// its time for an event: JSON, with many quotes. Each byte that is not UTF-8 becomes U+FFFD.
func AppendQuote(dst, text []byte) []byte {
	start, copied := len(dst), 0
	plain := utf8.Valid(text)
	dst = append(dst, '"')
	for i := 0; i < len(text) && plain; i++ {
		if c := text[i]; c == '"' || c == '\\' {
			dst = append(append(dst, text[copied:i]...), '\\')
			copied = i
		} else if c < ' ' {
			plain = false
		}
	}
	if plain {
		return append(append(dst, text[copied:]...), '"')
	}
	dst, _ = jsontext.AppendQuote(dst[:start], text) // the error only says that it is not UTF-8
	return dst
}
