# Log groups: the relay's own log, and, with the destination cloudwatch, the audit log itself.

locals {
  audit_log_group_name = coalesce(var.audit_log_group_name, "/kong/audit/${var.resource_name}")

  # Written out, so that it is known before the group exists.
  audit_log_group_arn = "arn:${local.partition}:logs:${var.aws_region}:${local.account}:log-group:${local.audit_log_group_name}"
  audit_log_group     = local.cloudwatch && !var.audit_log_group_exists ? 1 : 0

  # CloudWatch makes a data source of a group with these two tags: lower case, digits and underscores.
  data_source = { name = "kong_gateway", type = "audit" }

  # Principal, event name, workspace and UID.
  index_fields = var.audit_index_fields != null ? var.audit_index_fields : (
    lookup(var.relay_env, "RELAY_EVENT_FORMAT", "cloudtrail") == "ocsf"
    ? ["actor.user.uid", "api.operation", "metadata.tenant_uid", "metadata.uid"]
    : ["userIdentity.principalId", "eventName", "additionalEventData.workspace", "UID"]
  )

  audit_key_template = {
    Type                = "AWS::KMS::Key"
    DeletionPolicy      = "Retain"
    UpdateReplacePolicy = "Retain"
    Properties = {
      Description       = "Audit log of Kong"
      EnableKeyRotation = true
      Tags              = local.audit_tags
      KeyPolicy = {
        Version = "2012-10-17"
        Statement = [
          {
            Sid       = "AccountDecides"
            Effect    = "Allow"
            Principal = { AWS = "arn:${local.partition}:iam::${local.account}:root" }
            Action    = "kms:*"
            Resource  = "*"
          },
          {
            Sid       = "CloudWatchLogs"
            Effect    = "Allow"
            Principal = { Service = "logs.${var.aws_region}.${local.dns_suffix}" }
            Action    = ["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"]
            Resource  = "*"
            Condition = { ArnEquals = { "kms:EncryptionContext:aws:logs:arn" = local.audit_log_group_arn } }
          },
        ]
      }
    }
  }

  audit_tags = [for key, value in merge(var.resource_tags, {
    "cw:datasource:name" = local.data_source.name
    "cw:datasource:type" = local.data_source.type
  }) : { Key = key, Value = value }]

  audit_log_group_template = {
    Type                = "AWS::Logs::LogGroup"
    DeletionPolicy      = "Retain"
    UpdateReplacePolicy = "Retain"
    Properties = merge(
      {
        LogGroupName              = local.audit_log_group_name
        LogGroupClass             = "STANDARD" # the only class with field indexes
        DeletionProtectionEnabled = var.audit_deletion_protection
        Tags                      = local.audit_tags
      },
      var.audit_retention_days == 0 ? {} : { RetentionInDays = var.audit_retention_days },
      length(local.index_fields) == 0 ? {} : { FieldIndexPolicies = [{ Fields = local.index_fields }] },
      var.audit_create_kms_key ? { KmsKeyId = { "Fn::GetAtt" = ["Key", "Arn"] } } : {},
      var.audit_create_kms_key || var.kms_key_arn == null ? {} : { KmsKeyId = var.kms_key_arn },
    )
  }
}

resource "aws_cloudwatch_log_group" "relay" {
  region            = var.aws_region
  name              = var.host == "lambda" ? "/aws/lambda/${var.resource_name}" : "/ecs/${var.resource_name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = var.resource_tags
}

# By CloudFormation, which sets class, indexes, retention, protection, key and tags in one resource, and leaves group and
# key behind when the stack goes: an audit log is not deleted because its relay is.
resource "aws_cloudformation_stack" "audit" {
  count = local.audit_log_group

  region = var.aws_region
  name   = "${var.resource_name}-audit"
  tags   = var.resource_tags

  template_body = jsonencode({
    AWSTemplateFormatVersion = "2010-09-09"
    Description              = "Log group for the audit log of Kong"
    Resources = merge(
      { Group = local.audit_log_group_template },
      var.audit_create_kms_key ? { Key = local.audit_key_template } : {},
    )
    Outputs = {
      GroupArn = { Value = { "Fn::GetAtt" = ["Group", "Arn"] } }
    }
  })
}

# CloudWatch keeps a second copy of the data source's events in a table bucket, for Athena and its like. An account has
# one integration in a Region: where it exists, README.md has the command that adds the data source to it.
resource "aws_cloudformation_stack" "s3_tables" {
  count = local.cloudwatch && var.audit_s3_tables_role_arn != null ? 1 : 0

  region = var.aws_region
  name   = "${var.resource_name}-s3-tables"
  tags   = var.resource_tags

  template_body = jsonencode({
    AWSTemplateFormatVersion = "2010-09-09"
    Description              = "S3 Tables for the audit log of Kong"
    Resources = {
      Integration = {
        Type = "AWS::ObservabilityAdmin::S3TableIntegration"
        Properties = {
          RoleArn    = var.audit_s3_tables_role_arn
          LogSources = [{ Name = local.data_source.name, Type = local.data_source.type }]
          Encryption = merge(
            { SseAlgorithm = var.kms_key_arn == null ? "AES256" : "aws:kms" },
            var.kms_key_arn == null ? {} : { KmsKeyArn = var.kms_key_arn },
          )
        }
      }
    }
  })

  depends_on = [aws_cloudformation_stack.audit]
}
