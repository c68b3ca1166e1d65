# Everything at once: two gateways, each with a relay of its own. The first goes to CloudWatch Logs by Fargate, with
# triggers over HTTPS. The second goes to CloudTrail Lake by a Lambda, with a customer managed key, alarms, and Kong's
# security group.

terraform {
  required_version = ">= 1.11.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }
}

provider "aws" {
  region = "eu-central-1"
}

variable "kong_root_ca" {
  description = "PEM of the CA that signed the production Admin API's certificate."
  type        = string
}

variable "lambda_zip" {
  description = "The relay's zip for Lambda, from a release or built as terraform/README.md says."
  type        = string
  default     = "lambda.zip"
}

locals {
  vpc     = "vpc-0123456789abcdef0"
  subnets = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1", "subnet-0123456789abcdef2"]
  channel = "arn:aws:cloudtrail:eu-central-1:123456789012:channel/07441ab6-c4a1-4c8a-943d-a2f0c50c8a76"
  key     = "arn:aws:kms:eu-central-1:123456789012:key/1b7e5f6a-0000-4000-8000-000000000000"
  topic   = "arn:aws:sns:eu-central-1:123456789012:on-call"
  tags    = { service = "kong-audit-relay", team = "platform" }
}

module "logs" {
  source = "../.."

  resource_name       = "kong-audit-logs"
  resource_tags       = local.tags
  aws_region          = "eu-central-1"
  existing_vpc        = local.vpc
  existing_subnet_ids = local.subnets
  security_group      = "kong-audit-logs"
  source_name         = "staging"

  audit_log_group_name      = "/audit/kong-staging"
  audit_retention_days      = 400
  audit_deletion_protection = true
  audit_create_kms_key      = true
  audit_index_fields        = ["userIdentity.principalId", "eventName", "additionalEventData.workspace", "UID", "sourceIPAddress"]
  audit_s3_tables_role_arn  = "arn:aws:iam::123456789012:role/logs-to-s3-tables"

  lambda_env = {
    KONG_ADMIN_API   = "https://kong-admin.staging.internal.example.com:8444"
    KONG_SUPERADMIN  = true
    KONG_ADMIN_TOKEN = ""
    REDIS_DB         = "0"
  }
  kong_admin_token_secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:kong/audit-relay-staging-AbCdEf"

  host = "fargate"
  fargate = {
    image              = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/kong-audit-relay:1.0.0"
    certificate_arn    = "arn:aws:acm:eu-central-1:123456789012:certificate/11111111-2222-4333-8444-555555555555"
    plugin_cidr_blocks = ["10.20.0.0/16"]
    tasks              = 2
  }

  cache_serverless        = true
  cache_serverless_max_gb = 2
  create_vpc_endpoints    = true

  vpc_endpoint_route_table_ids = ["rtb-0123456789abcdef0"]

  kong_cidr_blocks = ["10.20.0.0/16"]
  alarm_topic_arns = [local.topic]
}

module "lake" {
  source = "../.."

  resource_name       = "kong-audit-lake"
  resource_tags       = local.tags
  aws_region          = "eu-central-1"
  existing_vpc        = local.vpc
  existing_subnet_ids = local.subnets
  security_group      = "kong-audit-lake"
  channel_arn         = local.channel
  source_name         = "production"

  lambda_env = {
    KONG_ADMIN_API   = "https://kong-admin.internal.example.com:8444"
    KONG_SUPERADMIN  = true
    KONG_ADMIN_TOKEN = ""
    KONG_ROOT_CA     = var.kong_root_ca
    REDIS_DB         = "0"
    CHANNEL_ARN      = local.channel
  }
  kong_admin_token_secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:kong/audit-relay-AbCdEf"

  lambda_zip           = var.lambda_zip
  lambda_architecture  = "arm64"
  lambda_memory        = 1024
  lambda_timeout       = 900
  reserved_concurrency = 2
  schedule_expression  = "rate(30 minutes)"
  function_url         = true
  plugin_role_name     = "kong-gateway"
  relay_env            = { RELAY_LOG_FORMAT = "json" }

  kms_key_arn            = local.key
  log_retention_days     = 365
  kong_security_group_id = "sg-0123456789abcdef0"

  cache_node_type      = "cache.r7g.large"
  cache_engine_version = "8.0"
  cache_snapshot_days  = 14

  alarm_topic_arns              = [local.topic]
  alarm_pass_age_seconds        = 7200
  alarm_undelivered_age_seconds = 3600
  kong_record_ttl               = 2592000
}

output "lake_lambda_function" {
  description = "The plugin's `lambda_function` on the production gateway."
  value       = module.lake.lambda_function
}

output "logs_relay_url" {
  description = "Where the staging gateway's plugin sends its triggers: point the certificate's name to it."
  value       = module.logs.relay_url
}

output "logs_trigger_secret_arn" {
  description = "What that plugin signs with."
  value       = module.logs.trigger_secret_arn
}
