package cloudwatch

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
)

// minRetention is the retention, in days, below which an audit log is hardly one.
const minRetention = 365

// Group is what protects the events in a log group.
type Group struct {
	Retention int    // days; 0: events never expire
	Policy    string // the account's policy that replaces the group's own retention, if there is one
	Protected bool   // whether the group is protected from deletion
	Class     types.LogGroupClass
}

// Warnings says what an auditor would object to.
func (g Group) Warnings() []string {
	var w []string
	if g.Retention != 0 && g.Retention < minRetention {
		by := "the log group's retention"
		if g.Policy != "" {
			by = "the account's retention policy " + g.Policy
		}
		w = append(w, fmt.Sprintf("%s deletes events after %d days: an audit log is commonly kept for at least %d", by, g.Retention, minRetention))
	}
	if !g.Protected {
		w = append(w, "the log group is not protected from deletion: enable its deletion protection")
	}
	if g.Class == types.LogGroupClassInfrequentAccess || g.Class == types.LogGroupClassDelivery {
		w = append(w, fmt.Sprintf("the log group has the class %s: relay verify cannot read its events, and it has no field indexes", g.Class))
	}
	return w
}

// Inspect looks at the log group. It needs logs:DescribeLogGroups, which nothing
// else does: a relay delivers without it.
func (d *Destination) Inspect(ctx context.Context) (Group, error) {
	in := &cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePrefix: &d.group}
	given := map[string]bool{}
	for {
		var out *cloudwatchlogs.DescribeLogGroupsOutput
		failure := d.caller.Do(ctx, func(ctx context.Context) (err error) {
			out, err = d.client.DescribeLogGroups(ctx, in)
			return err
		})
		if failure != nil {
			return Group{}, fmt.Errorf("describing the log group %s: %w", d.group, failure.Err())
		}
		for i := range out.LogGroups {
			g := &out.LogGroups[i]
			if aws.ToString(g.LogGroupName) != d.group { // a prefix finds longer names as well
				continue
			}
			return Group{
				Retention: int(aws.ToInt32(g.RetentionInDays)), Policy: aws.ToString(g.RetentionPolicyName),
				Protected: aws.ToBool(g.DeletionProtectionEnabled), Class: g.LogGroupClass,
			}, nil
		}
		token := aws.ToString(out.NextToken)
		if token == "" || given[token] {
			return Group{}, fmt.Errorf("describing the log group %s: it is not listed", d.group)
		}
		given[token] = true
		in.NextToken = &token
	}
}
