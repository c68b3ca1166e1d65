# The event data store and its channel, off by default: CloudTrail Lake takes no new customers since 2026-05-31, and in
# an account that did not use it before, creating a store is refused. Where it was used, the store often belongs to
# another team. Both are in one CloudFormation stack because the provider has no resource for a channel.

resource "aws_cloudformation_stack" "lake" {
  count = var.create_lake ? 1 : 0

  region = var.aws_region
  name   = "${var.resource_name}-lake"
  tags   = var.resource_tags

  template_body = jsonencode({
    AWSTemplateFormatVersion = "2010-09-09"
    Description              = "CloudTrail Lake store and channel for Kong's audit log"
    Resources = {
      # Retained: an audit store is not deleted because its relay is.
      Store = {
        Type                = "AWS::CloudTrail::EventDataStore"
        DeletionPolicy      = "Retain"
        UpdateReplacePolicy = "Retain"
        Properties = merge(
          {
            Name                         = "${var.resource_name}-events"
            RetentionPeriod              = var.cloudtrail_retention
            MultiRegionEnabled           = false
            OrganizationEnabled          = false
            TerminationProtectionEnabled = true
            AdvancedEventSelectors = [{
              Name           = "Events from outside of AWS"
              FieldSelectors = [{ Field = "eventCategory", Equals = ["ActivityAuditLog"] }]
            }]
          },
          var.kms_key_arn == null ? {} : { KmsKeyId = var.kms_key_arn },
        )
      }
      Channel = {
        Type = "AWS::CloudTrail::Channel"
        Properties = {
          Name         = "${var.resource_name}-channel"
          Source       = "Custom"
          Destinations = [{ Type = "EVENT_DATA_STORE", Location = { "Fn::GetAtt" = ["Store", "EventDataStoreArn"] } }]
        }
      }
    }
    Outputs = {
      ChannelArn = { Value = { "Fn::GetAtt" = ["Channel", "ChannelArn"] } }
      StoreArn   = { Value = { "Fn::GetAtt" = ["Store", "EventDataStoreArn"] } }
    }
  })
}
