# The first part is the first integration's: names, types and defaults are kept, so that its tfvars apply unchanged.
# README.md's table is made from this file by docs.sh, which reads the order description, type, default.

variable "resource_name" {
  description = "Name of the Lambda function, and the start of every other name."
  type        = string
  default     = "kong-cloudtrails-integration"

  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9-]{0,44}$", var.resource_name))
    error_message = "resource_name must start with a letter and hold at most 45 letters, digits and hyphens: IAM and Lambda names are made from it."
  }
}

variable "resource_tags" {
  description = "Tags of every resource that takes tags."
  type        = map(string)
  default = {
    project = "kong-cloudtrail-integrations"
  }
}

variable "aws_region" {
  description = "Region to deploy into. Every resource names it, so the provider may stand in another one."
  type        = string
}

variable "existing_vpc" {
  description = "Id of the VPC to deploy into. Kong's Admin API must be reachable from it."
  type        = string
}

variable "existing_subnet_ids" {
  description = "Ids of private subnets of that VPC, in at least two Availability Zones. They need a route to a NAT gateway: CloudTrail's data API has no VPC endpoint."
  type        = list(string)
}

variable "security_group" {
  description = "Name of the security group that is created for the relay."
  type        = string
}

variable "channel_arn" {
  description = "ARN of the CloudTrail Lake channel. Empty with `create_lake` or with the destination `cloudwatch`."
  type        = string

  validation {
    condition     = coalesce(var.channel_arn, "none") == "none" || can(regex("^arn:[a-z-]+:cloudtrail:[a-z0-9-]+:[0-9]{12}:channel/.+$", var.channel_arn))
    error_message = "channel_arn must look like arn:aws:cloudtrail:<region>:<account>:channel/<id>, or be empty."
  }
}

variable "lambda_env" {
  description = "Settings of the relay that the first integration had. `KONG_ROOT_CA` is PEM text, or empty; `KONG_ADMIN_TOKEN` goes to Secrets Manager, never to the environment, and is empty where `kong_admin_token_secret_arn` is set; `CHANNEL_ARN` repeats `channel_arn`."
  type = object({
    KONG_ADMIN_API   = string
    KONG_SUPERADMIN  = bool
    KONG_ADMIN_TOKEN = string
    KONG_ROOT_CA     = string
    REDIS_DB         = string
    CHANNEL_ARN      = string
  })
  sensitive = true

  validation {
    condition     = can(regex("^https?://[^/@[:space:]]+(/[^[:space:]]*)?$", var.lambda_env.KONG_ADMIN_API))
    error_message = "lambda_env.KONG_ADMIN_API must be an http or https URL without a user name: the URL is plain text in the environment."
  }
}

variable "image" {
  description = "Container image of the relay for Lambda; used only if it lies in ECR, where Lambda can take it. Else the zip is used."
  type        = string
  default     = "docker-hub-url"
}

# From here on: new.

variable "lambda_zip" {
  description = "Path of the zip that holds the relay as `bootstrap`. Null: `lambda.zip` beside this configuration."
  type        = string
  default     = null
}

variable "lambda_architecture" {
  description = "`arm64` or `x86_64`: what the zip or image was built for."
  type        = string
  default     = "arm64"

  validation {
    condition     = contains(["arm64", "x86_64"], var.lambda_architecture)
    error_message = "lambda_architecture must be arm64 or x86_64."
  }
}

variable "lambda_memory" {
  description = "Memory of the function in MiB; its CPU grows with it."
  type        = number
  default     = 512

  validation {
    condition     = var.lambda_memory >= 128 && var.lambda_memory <= 10240
    error_message = "lambda_memory must be 128 to 10240 MiB."
  }
}

variable "lambda_timeout" {
  description = "Seconds that a run may take. What is left then goes on in a run of its own."
  type        = number
  default     = 900

  validation {
    condition     = var.lambda_timeout >= 30 && var.lambda_timeout <= 900
    error_message = "lambda_timeout must be 30 to 900 seconds."
  }
}

variable "reserved_concurrency" {
  description = "Runs at once: one that works, one that leaves word. -1 reserves none, for accounts whose quota is too small."
  type        = number
  default     = 2

  validation {
    condition     = var.reserved_concurrency == -1 || var.reserved_concurrency >= 1
    error_message = "reserved_concurrency must be at least 1, or -1: 0 would stop the function."
  }
}

variable "relay_env" {
  description = "Further settings of the relay, `RELAY_…` to text. A secret goes by its `…_SECRET_ARN`, which the relay may then read."
  type        = map(string)
  default     = {}

  validation {
    condition = alltrue([for name, _ in var.relay_env :
      startswith(name, "RELAY_") && (endswith(name, "_SECRET_ARN") || !can(regex("SECRET|TOKEN|PASSWORD", name)))
    ])
    error_message = "relay_env takes RELAY_… settings only, and no secret in plain text."
  }
}

variable "source_name" {
  description = "Name of the gateway in the ledger, in metrics and in alarms; one for each Kong."
  type        = string
  default     = "kong"

  validation {
    condition     = can(regex("^[A-Za-z0-9_.-]{1,64}$", var.source_name))
    error_message = "source_name must be 1 to 64 letters, digits, dots, underscores and hyphens."
  }
}

variable "destination" {
  description = "Where events go: `cloudtrail` (Lake) or `cloudwatch` (Logs), for accounts that Lake is closed to."
  type        = string
  default     = "cloudtrail"

  validation {
    condition     = contains(["cloudtrail", "cloudwatch"], var.destination)
    error_message = "destination must be cloudtrail or cloudwatch."
  }
}

variable "audit_log_group_name" {
  description = "Log group for events, with the destination `cloudwatch`. Null: `/kong/audit/<resource_name>`."
  type        = string
  default     = null
}

variable "audit_retention_days" {
  description = "Days that this log group keeps events."
  type        = number
  default     = 2557
}

variable "host" {
  description = "What runs the relay: `lambda`, or `fargate` for `relay serve` with triggers over HTTPS."
  type        = string
  default     = "lambda"

  validation {
    condition     = contains(["lambda", "fargate"], var.host)
    error_message = "host must be lambda or fargate."
  }
}

variable "schedule_expression" {
  description = "When the function reconciles. The alarms count on an hour or less. On Fargate it is `RELAY_SCHEDULE`."
  type        = string
  default     = "rate(1 hour)"
}

variable "function_url" {
  description = "Also give the function a URL, with `AWS_IAM` authorization. The plugin needs none: it invokes the function."
  type        = bool
  default     = false
}

variable "plugin_role_name" {
  description = "Name of the IAM role that Kong runs as. Null: attach `plugin_invoke_policy_arn` yourself."
  type        = string
  default     = null
}

variable "kong_admin_token_secret_arn" {
  description = "ARN of a secret that holds Kong's token already. Terraform then never sees the token."
  type        = string
  default     = null
}

variable "kong_admin_token_version" {
  description = "Raise it when `lambda_env.KONG_ADMIN_TOKEN` has changed: Terraform cannot compare what it does not store."
  type        = number
  default     = 1
}

variable "trigger_secret_secret_arn" {
  description = "ARN of a secret that holds the trigger secret (`whsec_…`). Null: one is generated, unseen by Terraform."
  type        = string
  default     = null
}

variable "kms_key_arn" {
  description = "Customer managed key for logs, secrets, queue, cache and environment. Its policy must let CloudWatch Logs use it. Null: AWS's own keys."
  type        = string
  default     = null
}

variable "secret_kms_key_arns" {
  description = "Keys of secrets that were made elsewhere, where those are not AWS's own."
  type        = list(string)
  default     = []
}

variable "log_retention_days" {
  description = "Days that the relay's own logs are kept."
  type        = number
  default     = 90
}

variable "kong_cidr_blocks" {
  description = "Where Kong's Admin API is. Empty: in the VPC's own range. Ignored with `kong_security_group_id`."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.kong_cidr_blocks : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "kong_cidr_blocks takes IPv4 ranges, and not the whole internet."
  }
}

variable "kong_security_group_id" {
  description = "Security group of Kong's control plane. Rules in both directions are then made by group, not by range."
  type        = string
  default     = null
}

variable "ipv6_egress" {
  description = "Let the relay reach AWS over IPv6 too, for subnets with an egress-only gateway."
  type        = bool
  default     = false
}

variable "create_vpc_endpoints" {
  description = "Create the VPC endpoints that exist. Off: most VPCs have them, and private DNS takes one of a kind."
  type        = bool
  default     = false
}

variable "cache_serverless" {
  description = "ElastiCache Serverless instead of two nodes: cluster mode, so `REDIS_DB` must be 0."
  type        = bool
  default     = false
}

variable "cache_node_type" {
  description = "Size of the two cache nodes. The ledger takes about 50 bytes for each entry that Kong retains."
  type        = string
  default     = "cache.t4g.small"
}

variable "cache_engine_version" {
  description = "Version of Valkey. The major part names the parameter group's family."
  type        = string
  default     = "8.0"
}

variable "cache_snapshot_days" {
  description = "Days that snapshots of the ledger are kept. Dead letters live in it."
  type        = number
  default     = 7
}

variable "cache_serverless_max_gb" {
  description = "Storage that a serverless cache may grow to, in GB. A bound on cost."
  type        = number
  default     = 1
}

variable "kong_record_ttl" {
  description = "Seconds that Kong keeps audit entries (`audit_log_record_ttl`). An alarm rings at half of it."
  type        = number
  default     = 2592000
}

variable "alarms" {
  description = "Create the alarms."
  type        = bool
  default     = true
}

variable "alarm_topic_arns" {
  description = "SNS topics that alarms and their end are sent to."
  type        = list(string)
  default     = []
}

variable "alarm_pass_age_seconds" {
  description = "Age of the last complete pass that rings."
  type        = number
  default     = 7200
}

variable "alarm_undelivered_age_seconds" {
  description = "Age of the oldest undelivered entry that rings."
  type        = number
  default     = 7200
}

variable "create_lake" {
  description = "Create the event data store and its channel. Off: it fails in accounts that CloudTrail Lake is closed to, which is every account that did not use it before 2026-05-31."
  type        = bool
  default     = false
}

variable "cloudtrail_retention" {
  description = "Days that the created event data store keeps events."
  type        = number
  default     = 90
}

variable "fargate" {
  description = "For the host `fargate`: the relay's image, the ACM certificate of its internal HTTPS listener, who may ring it, size, architecture and number of tasks."
  type = object({
    image                    = string
    certificate_arn          = string
    plugin_cidr_blocks       = optional(list(string), [])
    plugin_security_group_id = optional(string)
    tasks                    = optional(number, 2)
    cpu                      = optional(number, 256)
    memory                   = optional(number, 512)
    architecture             = optional(string, "ARM64")
  })
  default = null

  validation {
    condition     = var.host != "fargate" || var.fargate != null
    error_message = "host = \"fargate\" needs the variable fargate: image and certificate_arn at least."
  }

  validation {
    condition     = alltrue([for cidr in try(var.fargate.plugin_cidr_blocks, []) : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "fargate.plugin_cidr_blocks takes IPv4 ranges, and not the whole internet."
  }
}
