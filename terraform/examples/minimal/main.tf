# The smallest deployment: a new log group in CloudWatch Logs, Kong in the same VPC, its token in a secret that Terraform
# never reads. The subnets have a route to a NAT gateway; examples/cloudwatch-private does without.

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

variable "kong_admin_token_secret_arn" {
  description = "Secrets Manager secret that holds the token of Kong's user audit-relay."
  type        = string
}

variable "lambda_zip" {
  description = "The relay's zip for Lambda, from a release or built as terraform/README.md says."
  type        = string
  default     = "lambda.zip"
}

module "relay" {
  source = "../.."

  aws_region          = "eu-central-1"
  resource_name       = "kong-audit-relay"
  existing_vpc        = "vpc-0123456789abcdef0"
  existing_subnet_ids = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
  security_group      = "kong-audit-relay"

  kong_admin_token_secret_arn = var.kong_admin_token_secret_arn
  lambda_zip                  = var.lambda_zip

  lambda_env = {
    KONG_ADMIN_API  = "https://kong-admin.internal.example.com:8444"
    KONG_SUPERADMIN = true
  }
}

output "lambda_function" {
  description = "The plugin's setting of that name."
  value       = module.relay.lambda_function
}

output "plugin_invoke_policy_arn" {
  description = "Attach it to the role that Kong runs as."
  value       = module.relay.plugin_invoke_policy_arn
}

output "log_group" {
  description = "Where the events are."
  value       = module.relay.destination
}
