# What several files need: names, ARNs that are known before the resource exists, and the relay's environment.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  lambda     = var.host == "lambda" ? 1 : 0
  fargate    = var.host == "fargate" ? 1 : 0
  cloudtrail = local.destination == "cloudtrail"
  cloudwatch = local.destination == "cloudwatch"

  # It follows from what is set, so that tfvars from before this variable go on to mean CloudTrail Lake.
  destination = var.destination != null ? var.destination : (var.create_lake || local.given_channel != "none" ? "cloudtrail" : "cloudwatch")

  account    = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
  dns_suffix = local.partition == "aws-cn" ? "amazonaws.com.cn" : "amazonaws.com"

  # Written out, not read from the resource: the role names the function and the function names the role.
  function_arn = "arn:${local.partition}:lambda:${var.aws_region}:${local.account}:function:${var.resource_name}"

  # ElastiCache takes 40 characters, for users as well; load balancers take 32, and no name that begins with internal-.
  # None may end in a hyphen or hold two in a row.
  plain_name     = replace(var.resource_name, "/-+/", "-")
  ledger_id      = lower("${trimsuffix(substr(local.plain_name, 0, 33), "-")}-ledger")
  ledger_user_id = trimsuffix(substr(local.ledger_id, 0, 38), "-")
  alb_name       = "${trimsuffix(substr(replace(local.plain_name, "/^internal-/", ""), 0, 28), "-")}-alb"

  # lambda_env is sensitive as a whole, for the token in it. The rest is not, and belongs into the plan.
  kong_admin_api = nonsensitive(var.lambda_env.KONG_ADMIN_API)
  kong_root_ca   = nonsensitive(var.lambda_env.KONG_ROOT_CA)
  redis_db       = nonsensitive(var.lambda_env.REDIS_DB)
  env_channel    = nonsensitive(var.lambda_env.CHANNEL_ARN)
  has_token      = nonsensitive(coalesce(var.lambda_env.KONG_ADMIN_TOKEN, "none") != "none")

  # The first integration's README gives "disabled" as an example of no CA.
  has_root_ca = !contains(["none", "disabled"], coalesce(local.kong_root_ca, "none"))

  given_channel = coalesce(var.channel_arn, local.env_channel, "none")
  channel_arn   = var.create_lake ? lookup(aws_cloudformation_stack.lake[0].outputs, "ChannelArn", "") : local.given_channel

  # Every secret that the relay reads; relay_env can name more of them. An ARN may have #key after it.
  secret_arns = merge(
    { for name, value in var.relay_env : name => value if endswith(name, "_SECRET_ARN") },
    { REDIS_PASSWORD_SECRET_ARN = local.redis_secret_arn },
    { RELAY_TRIGGER_SECRET_SECRET_ARN = local.trigger_secret_arn },
    local.has_token_secret ? { KONG_ADMIN_TOKEN_SECRET_ARN = local.kong_token_secret_arn } : {},
  )

  # What the relay's role may read: an ARN in a policy has no #key.
  secret_resources = distinct([for arn in values(local.secret_arns) : split("#", arn)[0]])

  # The whole environment of the relay, for either host. It holds ARNs of secrets, and no secret.
  environment = merge(
    var.relay_env,
    {
      KONG_ADMIN_API   = local.kong_admin_api
      KONG_SUPERADMIN  = tostring(nonsensitive(var.lambda_env.KONG_SUPERADMIN))
      REGION           = var.aws_region
      REDIS_HOST       = local.redis_host
      REDIS_DB         = coalesce(local.redis_db, "0")
      REDIS_USERNAME   = local.redis_username
      RELAY_REDIS_TLS  = "true"
      RELAY_SOURCE     = var.source_name
      RELAY_RECORD_TTL = tostring(var.kong_record_ttl)
    },
    local.has_root_ca ? { KONG_ROOT_CA = local.kong_root_ca } : {},
    var.cache_serverless ? { RELAY_REDIS_CLUSTER = "true" } : {},
    local.destination_environment,
    local.secret_arns,
  )

  destination_environment = merge(
    { RELAY_DESTINATION = local.destination },
    local.cloudtrail ? { CHANNEL_ARN = local.channel_arn } : {},
    # By ARN: it also tells the relay the account that its events are for.
    local.cloudwatch ? { RELAY_LOG_GROUP = local.audit_log_group_arn } : {},
  )

  # Lambda takes 4 KB of environment. What AWS names is not known in a plan and counts as the
  # most that it can be, so that too much is refused before anything is made. Lambda measures it as JSON.
  environment_limit = 4096
  environment_known = merge(
    var.relay_env,
    { KONG_ADMIN_API = local.kong_admin_api, KONG_ROOT_CA = local.has_root_ca ? local.kong_root_ca : "" },
    { CHANNEL_ARN = local.given_channel, RELAY_SOURCE = var.source_name, RELAY_LOG_GROUP = local.audit_log_group_name },
    { REGION = var.aws_region, KONG_ADMIN_TOKEN_SECRET_ARN = coalesce(var.kong_admin_token_secret_arn, "none") },
    { RELAY_TRIGGER_SECRET_SECRET_ARN = coalesce(var.trigger_secret_secret_arn, "none") },
  )
  environment_unknown = 1000
  environment_bytes   = floor(length(base64encode(jsonencode(local.environment_known))) / 4 * 3) + local.environment_unknown
}
