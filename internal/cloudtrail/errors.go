package cloudtrail

import "github.com/kong-cloudtrail/relay/internal/awscall"

const (
	hintChannel    = "CHANNEL_ARN must be the ARN of an existing channel, of the type Custom, in the Region that is called: `aws cloudtrail list-channels --region <region>` shows them"
	hintPermission = "allow cloudtrail-data:PutAuditEvents on the ARN of the channel to the user or role of the relay, and in the channel's own policy if it belongs to another account"
	hintExternalID = "the channel's policy may ask for an external ID: set the one that it names"
)

// service says what CloudTrail's error codes mean, of a call and of an event.
var service = awscall.Service{
	Name:       "CloudTrail",
	Endpoint:   "AWS_ENDPOINT_URL_CLOUDTRAIL_DATA",
	Permission: hintPermission,
	Codes: map[string]string{
		"ChannelNotFound":                        hintChannel,
		"ChannelNotFoundException":               hintChannel,
		"InvalidChannelARN":                      hintChannel,
		"InvalidChannelARNException":             hintChannel,
		"ChannelUnsupportedSchema":               hintChannel,
		"ChannelUnsupportedSchemaException":      hintChannel,
		"UnsupportedOperationException":          hintChannel,
		"ChannelInsufficientPermission":          hintPermission + "; " + hintExternalID,
		"ChannelInsufficientPermissionException": hintPermission + "; " + hintExternalID,
	},
	Parameters: map[string]string{"channelArn": hintChannel, "externalId": hintExternalID},
}

// eventSettings are the failures of an event that come from a setting.
var eventSettings = map[string]string{
	"AccountNotSubscribed": "the account that owns the channel does not take events of this source: check CHANNEL_ARN, and that the channel has an event data store",
	"InvalidRecipient":     "the account in CHANNEL_ARN is not the one that owns the channel: take the ARN from `aws cloudtrail list-channels` in that account",
	"InvalidEventSource":   "the channel does not take events of the source kong-gateway: CHANNEL_ARN must name a channel of the type Custom",
}

// aboutEvent are the codes of an event that are known to be about it.
var aboutEvent = map[string]bool{
	"FieldTooLong": true, "FieldNotFound": true, "InvalidChecksum": true, "InvalidData": true,
}
