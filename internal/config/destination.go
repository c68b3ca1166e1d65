package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Destination is where events go.
type Destination string

// Destinations.
const (
	ToCloudTrail Destination = "cloudtrail" // CloudTrail Lake
	ToCloudWatch Destination = "cloudwatch" // CloudWatch Logs
	ToJSONL      Destination = "jsonl"      // lines of JSON
)

// destinationRow is what the settings have to know about one destination.
type destinationRow struct {
	kind  Destination
	title string // for a person
	// setting is the name of the setting that holds the destination's address (an ARN, a
	// log group), and that selects this destination if --destination is not set. needs says
	// what that setting names. Both are empty for a file only, which --destination names.
	setting, needs string
	isFile         bool
	ownFormat      bool     // it accepts its own event format only
	only           []string // settings that have no effect with another destination
	// permissions returns what the relay has to be allowed in AWS. May be nil.
	permissions func(s *Settings) []Permission
}

// destinationTable is the one list of destinations, beginning with the one that most
// installations want. Package app opens them.
func destinationTable() []destinationRow {
	return []destinationRow{
		{
			kind: ToCloudWatch, title: "CloudWatch Logs", setting: "log-group", needs: "the log group",
			only: []string{"log-group"},
			permissions: func(s *Settings) []Permission {
				group := s.arn("logs", "log-group:"+s.LogGroup+":*")
				return []Permission{
					{"Deliver", group, []string{"logs:CreateLogStream", "logs:PutLogEvents"}},
					{"Verify", group, []string{"logs:FilterLogEvents"}},
					{"CheckRetention", s.arn("logs", "log-group:*"), []string{"logs:DescribeLogGroups"}},
				}
			},
		},
		{
			kind: ToCloudTrail, title: "CloudTrail Lake", setting: "channel-arn", needs: "the ARN of the CloudTrail Lake channel",
			only: []string{"event-data-store"}, ownFormat: true,
			permissions: func(s *Settings) []Permission {
				list := []Permission{{"Deliver", s.ChannelARN, []string{"cloudtrail-data:PutAuditEvents"}}}
				if s.EventDataStore != "" {
					list = append(list, Permission{
						"Verify", s.arn("cloudtrail", "eventdatastore/"+s.EventDataStore),
						[]string{"cloudtrail:StartQuery", "cloudtrail:DescribeQuery", "cloudtrail:GetQueryResults"},
					})
				}
				return list
			},
		},
		{kind: ToJSONL, title: "a file", isFile: true},
	}
}

// Permission is what the relay has to be allowed in AWS.
type Permission struct {
	Name     string // of the policy's statement
	Resource string // an ARN
	Actions  []string
}

// Permissions returns what the relay has to be allowed for its destination.
func (s *Settings) Permissions() []Permission {
	if row := destinationNamed(s.Destination); row.permissions != nil {
		return row.permissions(s)
	}
	return nil
}

// arn returns the ARN of a resource in the Region and account of the destination.
func (s *Settings) arn(service, resource string) string {
	return fmt.Sprintf("arn:%s:%s:%s:%s:%s", partition(s.Region), service, s.Region, cmp.Or(s.AccountID, "*"), resource)
}

func partition(region string) string {
	for _, p := range []struct{ prefix, partition string }{
		{"cn-", "aws-cn"}, {"us-gov-", "aws-us-gov"}, {"eusc-", "aws-eusc"}, {"us-iso-", "aws-iso"}, {"us-isob-", "aws-iso-b"},
		{"eu-isoe-", "aws-iso-e"}, {"us-isof-", "aws-iso-f"}, {"eu-isof-", "aws-iso-f"},
	} {
		if strings.HasPrefix(region, p.prefix) {
			return p.partition
		}
	}
	return "aws"
}

// EventsToStdout reports whether the destination is standard output.
func (s *Settings) EventsToStdout() bool { return s.Destination == ToJSONL && s.JSONLFile == "-" }

// destinationNamed returns the row of a destination, the zero value for an unknown one.
func destinationNamed(d Destination) destinationRow {
	rows := destinationTable()
	if i := slices.IndexFunc(rows, func(row destinationRow) bool { return row.kind == d }); i >= 0 {
		return rows[i]
	}
	return destinationRow{}
}

func (l *loader) destination(text string) error {
	s := &l.settings
	name, file, cut := strings.Cut(text, ":")
	row := destinationNamed(Destination(name))
	switch {
	case row.kind == "", cut && (!row.isFile || file == ""):
		return expected(destinationNames(), "")
	case row.isFile:
		s.JSONLFile = cmp.Or(file, "-")
		if file == "/dev/stdout" || file == "/dev/fd/1" || file == "/proc/self/fd/1" {
			s.JSONLFile = "-" // another open file would overwrite, or be overwritten
		}
	}
	s.Destination = row.kind
	return nil
}

func destinationNames() string {
	var names []string
	for _, row := range destinationTable() {
		name := string(row.kind)
		if row.isFile {
			name += ":<file>"
		}
		names = append(names, name)
	}
	slices.Sort(names)
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

func (l *loader) checkDestination() {
	s := &l.settings
	l.chooseDestination()
	l.chooseRegion()
	chosen := destinationNamed(s.Destination)
	for _, row := range destinationTable() {
		for _, name := range row.only {
			if l.given(name) && chosen.kind != "" && chosen.kind != row.kind {
				s.Warn(name + " has no effect: the destination is " + string(chosen.kind))
			}
		}
	}
	if s.EventFormat == "ocsf" && chosen.ownFormat {
		l.problems.add("--event-format (RELAY_EVENT_FORMAT) is ocsf, but %s takes its own format only. Leave it out, or set another --destination.", chosen.title)
	}
	if l.need&NeedDestination == 0 || chosen.setting == "" {
		return
	}
	if !l.given(chosen.setting) {
		l.problems.missing(chosen.setting, chosen.needs+" for --destination "+string(chosen.kind))
		return // the Region may well come with it, in an ARN
	}
	if s.Region == "" && !l.wrong[chosen.setting] && !l.given("region") {
		l.problems.missing("region", "the AWS Region of the destination, as neither AWS_REGION nor an ARN names one")
	}
}

// chooseDestination infers the destination from the settings that are given (--log-group,
// --channel-arn), unless --destination names it.
func (l *loader) chooseDestination() {
	s := &l.settings
	if l.given("destination") {
		return
	}
	var given []destinationRow
	for _, row := range destinationTable() {
		if row.setting != "" && l.given(row.setting) {
			given = append(given, row)
		}
	}
	switch {
	case len(given) > 1:
		a, b := given[0], given[1]
		l.problems.add("%s and %s are both set, which are two destinations: %s and %s. "+
			"Leave one of them out, or choose with --destination (RELAY_DESTINATION).", flagOf(a.setting), flagOf(b.setting), a.title, b.title)
	case len(given) == 1:
		s.Destination = given[0].kind
	case l.need&NeedDestination != 0:
		var ways []string
		for _, row := range destinationTable() {
			way := "or --destination (RELAY_DESTINATION) " + string(row.kind) + ":<file>"
			if !row.isFile {
				way = flagOf(row.setting).String()
			}
			ways = append(ways, way+" for "+row.title)
		}
		l.problems.add("no destination is set. Set %s.", strings.Join(ways, ", "))
	}
}

// flagOf returns the flag of a setting, which must not be a secret.
func flagOf(name string) Flag { return rowNamed(name).flags()[0] }

// chooseRegion takes the Region from the environment or from an ARN if no setting
// names it. A channel's ARN also counts for another destination: installations that
// moved from CloudTrail Lake may still set it.
func (l *loader) chooseRegion() {
	s := &l.settings
	own, channel := l.arns[s.Destination], l.arns[ToCloudTrail]
	s.AccountID = cmp.Or(own.AccountID, channel.AccountID)
	region := cmp.Or(own.Region, channel.Region)
	if s.Region == "" && !l.given("region") {
		s.Region = cmp.Or(l.getenv("AWS_REGION"), region)
	}
	if !destinationNamed(s.Destination).isFile && region != "" && s.Region != "" && s.Region != region {
		s.Warn("the Region " + s.Region + " is not that of the ARN, " + region + ": the destination is looked for in " + s.Region)
	}
}
