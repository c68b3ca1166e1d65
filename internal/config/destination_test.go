package config

import "testing"

func TestRegion(t *testing.T) {
	channel := "CHANNEL_ARN=arn:aws:cloudtrail:eu-west-1:123456789012:channel/abc"
	for _, test := range []struct {
		env      []string
		want     string
		warnings int
	}{
		{[]string{channel}, "eu-west-1", 0},
		{[]string{channel, "AWS_REGION=eu-west-2"}, "eu-west-2", 1},
		{[]string{channel, "AWS_REGION=eu-west-2", "REGION=eu-west-1"}, "eu-west-1", 0},
		{[]string{"RELAY_LOG_GROUP=arn:aws:logs:eu-west-3:123456789012:log-group:/kong/audit:*"}, "eu-west-3", 0},
		{[]string{"RELAY_DESTINATION=jsonl:-"}, "", 0},
	} {
		s, err := load(t, NeedDestination, test.env...)
		if err != nil || s.Region != test.want || len(s.Warnings) != test.warnings {
			t.Errorf("%v: Region %q, %v, warnings %q", test.env, s.Region, err, s.Warnings)
		}
		if s.Destination == ToCloudWatch && (s.LogGroup != "/kong/audit" || s.AccountID != "123456789012") {
			t.Errorf("log group %q of account %q", s.LogGroup, s.AccountID)
		}
	}
}

// The destination follows from what is set, unless it is named. The channel alone
// goes on to mean CloudTrail Lake.
func TestDestination(t *testing.T) {
	const (
		channel = "CHANNEL_ARN=arn:aws:cloudtrail:eu-west-1:123456789012:channel/abc"
		group   = "RELAY_LOG_GROUP=/kong/audit"
		region  = "REGION=eu-west-1"
	)
	for _, test := range []struct {
		flags, env []string
		want       Destination
	}{
		{nil, []string{channel}, ToCloudTrail},
		{nil, []string{group, region}, ToCloudWatch},
		{[]string{"log-group=/kong/audit"}, []string{region}, ToCloudWatch},
		{nil, []string{group, region, "CHANNEL_ARN="}, ToCloudWatch},
		{nil, []string{group, channel, "RELAY_DESTINATION=cloudwatch"}, ToCloudWatch},
		{nil, []string{group, channel, "RELAY_DESTINATION=cloudtrail"}, ToCloudTrail},
		{[]string{"destination=jsonl:-"}, []string{channel, "RELAY_DESTINATION=cloudtrail"}, ToJSONL},
	} {
		flags, getenv, readFile := given(test.flags, test.env, nil)
		s, err := Load(NeedDestination, flags, getenv, readFile)
		if err != nil || s.Destination != test.want {
			t.Errorf("%v %v: %q, %v", test.flags, test.env, s.Destination, err)
		}
	}
}

// Every partition of AWS has its own name in ARNs.
func TestPermissionsOfEveryPartition(t *testing.T) {
	for region, partition := range map[string]string{
		"eu-central-1": "aws", "us-gov-west-1": "aws-us-gov", "cn-north-1": "aws-cn", "eusc-de-east-1": "aws-eusc", "us-iso-east-1": "aws-iso",
		"us-isob-east-1": "aws-iso-b",
	} {
		s := Settings{Destination: ToCloudWatch, LogGroup: "/kong/audit", Region: region, AccountID: "123456789012"}
		want := "arn:" + partition + ":logs:" + region + ":123456789012:log-group:/kong/audit:*"
		if got := s.Permissions()[0].Resource; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
