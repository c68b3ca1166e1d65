package echo_test

import (
	"fmt"

	"github.com/kong-cloudtrail/relay/internal/echo"
)

// kongadmin's tests go through all codings.
func ExampleSecrets_In() {
	secrets := echo.Secrets{"correct-horse"}
	fmt.Println(secrets.In("Basic dXNlcjpjb3JyZWN0LWhvcnNl is wrong"), secrets.In("there is no such user"))
	// Output: true false
}
