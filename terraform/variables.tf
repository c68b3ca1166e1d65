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
  description = "Region to deploy into. Every resource names it, so the provider may be configured for another one."
  type        = string
}

variable "existing_vpc" {
  description = "Id of the VPC to deploy into. Kong's Admin API must be reachable from it."
  type        = string
}

variable "existing_subnet_ids" {
  description = "Ids of private subnets of that VPC, in at least two Availability Zones. They need a route to a NAT gateway, unless `create_vpc_endpoints` makes one unnecessary."
  type        = list(string)
}

variable "security_group" {
  description = "Name of the security group that is created for the relay. The names of the other groups begin with it."
  type        = string

  validation {
    condition     = !startswith(lower(var.security_group), "sg-")
    error_message = "security_group is the name of a group that is created, not the id of one that exists, and AWS takes no name that begins with sg-. Kong's own group goes into kong_security_group_id."
  }

  validation {
    condition     = can(regex("^[a-zA-Z0-9 ._:/()#,@\\[\\]+=&;{}!$*-]{1,240}$", var.security_group))
    error_message = "security_group must be 1 to 240 letters, digits, spaces and any of . _ - : / ( ) # , @ [ ] + = & ; { } ! $ *."
  }
}

variable "channel_arn" {
  description = "ARN of the CloudTrail Lake channel. Null: events go to CloudWatch Logs, unless `create_lake` makes a channel."
  type        = string
  default     = null

  validation {
    condition     = coalesce(var.channel_arn, "none") == "none" || can(regex("^arn:[a-z-]+:cloudtrail:[a-z0-9-]+:[0-9]{12}:channel/.+$", var.channel_arn))
    error_message = "channel_arn must look like arn:aws:cloudtrail:<region>:<account>:channel/<id>."
  }

  # An empty text is most often a variable that was not filled in: it must not send the audit log elsewhere unnoticed.
  validation {
    condition     = var.channel_arn != "" || coalesce(var.destination, "none") == "cloudwatch" || var.create_lake || coalesce(var.lambda_env.CHANNEL_ARN, "none") != "none"
    error_message = "channel_arn is empty. For CloudTrail Lake set it, or create_lake; for CloudWatch Logs leave it out, or set destination = \"cloudwatch\"."
  }

  validation {
    condition     = coalesce(var.destination, "none") != "cloudtrail" || var.channel_arn == "" || var.create_lake || coalesce(var.channel_arn, var.lambda_env.CHANNEL_ARN, "none") != "none"
    error_message = "destination = \"cloudtrail\" needs a channel: set channel_arn, or create_lake in an account that CloudTrail Lake is open to."
  }

  validation {
    condition     = var.destination != null || var.audit_log_group_name == null || !(var.create_lake || coalesce(var.channel_arn, var.lambda_env.CHANNEL_ARN, "none") != "none")
    error_message = "A channel and audit_log_group_name are set, which are two destinations. Leave one out, or set destination."
  }
}

variable "lambda_env" {
  description = "Settings of the relay that the first integration had. `KONG_ROOT_CA` is PEM text or the path of a file in the zip or image; `KONG_ADMIN_TOKEN` goes to Secrets Manager, never to the environment, and is left out where `kong_admin_token_secret_arn` is set; `CHANNEL_ARN` repeats `channel_arn`."
  type = object({
    KONG_ADMIN_API   = string
    KONG_SUPERADMIN  = bool
    KONG_ADMIN_TOKEN = optional(string)
    KONG_ROOT_CA     = optional(string)
    REDIS_DB         = optional(string)
    CHANNEL_ARN      = optional(string)
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
  description = "Seconds that a run may take. What is left then goes on in another run."
  type        = number
  default     = 900

  validation {
    condition     = var.lambda_timeout >= 30 && var.lambda_timeout <= 900
    error_message = "lambda_timeout must be 30 to 900 seconds."
  }
}

variable "reserved_concurrency" {
  description = "Runs at once: one that makes the pass, one that leaves a rerun request for it. -1 reserves none, for accounts whose quota is too small."
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
    condition     = alltrue([for name, _ in var.relay_env : startswith(name, "RELAY_")])
    error_message = "relay_env takes settings that begin with RELAY_. The others are variables of this module or members of lambda_env."
  }

  validation {
    condition = alltrue([for name, _ in var.relay_env :
      name == "RELAY_SECRET_REFRESH" || endswith(name, "_SECRET_ARN") || !can(regex("SECRET|TOKEN|PASSWORD", name))
    ])
    error_message = "relay_env takes no secret in plain text: put it into Secrets Manager, and its ARN into …_SECRET_ARN."
  }

  validation {
    condition     = !contains(keys(var.relay_env), "RELAY_SECRET_REFRESH")
    error_message = "relay_env must not set RELAY_SECRET_REFRESH: the steps of a rotation in README.md count on the relay's own five minutes, and a secret that was refused is read again at once."
  }

  validation {
    condition = length(setintersection(keys(var.relay_env), [
      "RELAY_DESTINATION", "RELAY_EMF", "RELAY_LISTEN", "RELAY_LOG_GROUP", "RELAY_OPS_LISTEN", "RELAY_RECORD_TTL",
      "RELAY_REDIS_CLUSTER", "RELAY_REDIS_TLS", "RELAY_SOURCE", "RELAY_TRIGGER_SECRET_SECRET_ARN",
    ])) == 0
    error_message = "relay_env must not set what this module sets: RELAY_DESTINATION (destination), RELAY_LOG_GROUP (audit_log_group_name), RELAY_RECORD_TTL (kong_record_ttl), RELAY_SOURCE (source_name), RELAY_TRIGGER_SECRET_SECRET_ARN (trigger_secret_secret_arn), RELAY_REDIS_TLS and RELAY_REDIS_CLUSTER (cache_serverless), RELAY_LISTEN, RELAY_OPS_LISTEN and RELAY_EMF (host)."
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
  description = "Where events go: `cloudwatch` (Logs) or `cloudtrail` (Lake). Null: `cloudtrail` where a channel is set or `create_lake` is, else `cloudwatch`."
  type        = string
  default     = null

  validation {
    condition     = contains(["cloudtrail", "cloudwatch"], coalesce(var.destination, "cloudwatch"))
    error_message = "destination must be cloudwatch or cloudtrail."
  }
}

variable "audit_log_group_name" {
  description = "Log group for events, with the destination `cloudwatch`. Null: `/kong/audit/<resource_name>`."
  type        = string
  default     = null

  validation {
    condition     = var.audit_log_group_name == null || can(regex("^[-._/#A-Za-z0-9]{1,512}$", var.audit_log_group_name))
    error_message = "audit_log_group_name must be 1 to 512 letters, digits and any of - . _ / #."
  }
}

variable "audit_log_group_exists" {
  description = "The log group exists already, and is used as it is: after a `destroy`, which leaves it, or where another team owns it."
  type        = bool
  default     = false
}

variable "audit_retention_days" {
  description = "Days that this log group keeps events. 0: without end."
  type        = number
  default     = 2557

  validation {
    condition = contains([
      0, 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
    ], var.audit_retention_days)
    error_message = "audit_retention_days must be one of CloudWatch's: 0, 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653."
  }
}

variable "audit_deletion_protection" {
  description = "Nobody can delete this log group until the protection has been taken off."
  type        = bool
  default     = true
}

variable "audit_create_kms_key" {
  description = "Create a key for this log group, which `destroy` leaves as it leaves the group. Else `kms_key_arn` is used, where it is set."
  type        = bool
  default     = false
}

variable "audit_index_fields" {
  description = "Fields of an event that CloudWatch indexes, so that queries by them read less. Null: principal, event name, workspace and UID, as the event's format names them."
  type        = list(string)
  default     = null

  validation {
    condition     = var.audit_index_fields == null || (length(coalesce(var.audit_index_fields, [])) <= 20 && alltrue([for field in coalesce(var.audit_index_fields, []) : length(field) >= 1 && length(field) <= 100]))
    error_message = "audit_index_fields takes at most 20 fields of 1 to 100 characters."
  }
}

variable "audit_s3_tables_role_arn" {
  description = "Role by which CloudWatch writes S3 Tables: events of the log group can then be queried there too. Null: no association."
  type        = string
  default     = null
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

variable "create_vpc_endpoints" {
  description = "Create interface endpoints for the services that the relay calls; with the destination `cloudwatch` it then needs no NAT gateway. Off: a VPC takes one endpoint with private DNS for each service, and may have it already."
  type        = bool
  default     = false
}

variable "vpc_endpoint_policy" {
  description = "Policy of these endpoints, as JSON. The whole VPC uses them by private DNS. Null: what each caller's own policies allow."
  type        = string
  default     = null
}

variable "vpc_endpoint_route_table_ids" {
  description = "Route tables of the subnets, for a gateway endpoint to S3. Fargate without a NAT gateway needs it: ECR keeps the layers of images in S3."
  type        = list(string)
  default     = []
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
  description = "Version of Valkey that the ledger is created with. AWS upgrades it afterwards, and Terraform leaves that alone. The major part names the parameter group's family."
  type        = string
  default     = "8.0"
}

variable "cache_snapshot_days" {
  description = "Days that snapshots of the ledger are kept. Dead letters live in it."
  type        = number
  default     = 7
}

variable "cache_snapshot_name" {
  description = "Snapshot that the ledger is created from, such as the final one of a ledger that was destroyed. Null: it begins empty. No effect on a ledger that exists."
  type        = string
  default     = null
}

variable "cache_generation" {
  description = "Raise it to allow a change that replaces the ledger, such as another `kms_key_arn` or `cache_serverless`. The new ledger is empty, and what Kong still holds is delivered again."
  type        = number
  default     = 1
}

variable "cache_serverless_max_gb" {
  description = "Storage that a serverless cache may grow to, in GB. A bound on cost."
  type        = number
  default     = 1
}

variable "kong_record_ttl" {
  description = "Seconds that Kong keeps audit entries (`audit_log_record_ttl`). An alarm goes off at half of it."
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
  description = "Age of the last complete pass at which an alarm goes off."
  type        = number
  default     = 7200
}

variable "alarm_undelivered_age_seconds" {
  description = "Age of the oldest undelivered entry at which an alarm goes off."
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
  description = "For the host `fargate`: the relay's image, the ACM certificate of its internal HTTPS listener, from where the plugin calls it, size, architecture and number of tasks."
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
