package awscall

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// accountTimeout bounds the call to STS, which may be unreachable: a VPC without a NAT
// gateway reaches only the services for which it has endpoints.
const accountTimeout = 3 * time.Second

// Account returns the AWS account of the credentials. It asks their source and then STS,
// which needs no permission. The error contains nothing of AWS's answer.
func Account(ctx context.Context, cfg aws.Config) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, accountTimeout)
	defer cancel()
	caller, cfg := New(cfg, Service{Name: "STS", Endpoint: "AWS_ENDPOINT_URL_STS"})
	account := ""
	failure := caller.Do(ctx, func(ctx context.Context) error {
		given, err := cfg.Credentials.Retrieve(ctx)
		if err != nil || given.AccountID != "" {
			account = given.AccountID
			return err
		}
		out, err := sts.NewFromConfig(cfg).GetCallerIdentity(ctx, nil)
		if err == nil {
			account = aws.ToString(out.Account)
		}
		return err
	})
	if failure != nil {
		return "", failure.Err()
	}
	if len(account) != 12 {
		return "", errors.New("STS did not name an account")
	}
	return account, nil
}
