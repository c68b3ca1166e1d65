# Log groups: the relay's own log, and, with the destination cloudwatch, the audit log itself.

resource "aws_cloudwatch_log_group" "relay" {
  region            = var.aws_region
  name              = var.host == "lambda" ? "/aws/lambda/${var.resource_name}" : "/ecs/${var.resource_name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = var.resource_tags
}

# The two tags make CloudWatch treat the group as a data source. destroy leaves it behind: it is the audit record.
resource "aws_cloudwatch_log_group" "audit" {
  count = local.cloudwatch ? 1 : 0

  region            = var.aws_region
  name              = coalesce(var.audit_log_group_name, "/kong/audit/${var.resource_name}")
  retention_in_days = var.audit_retention_days
  kms_key_id        = var.kms_key_arn
  skip_destroy      = true

  tags = merge(var.resource_tags, {
    "cw:datasource:name" = "kong_gateway"
    "cw:datasource:type" = "audit"
  })
}
