# What several files need: names, ARNs that are known before the resource exists, and the relay's environment.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  lambda     = var.host == "lambda" ? 1 : 0
  fargate    = var.host == "fargate" ? 1 : 0
  cloudtrail = var.destination == "cloudtrail"
  cloudwatch = var.destination == "cloudwatch"

  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition

  # Written out, not read from the resource: the role names the function and the function names the role.
  function_arn = "arn:${local.partition}:lambda:${var.aws_region}:${local.account}:function:${var.resource_name}"

  # ElastiCache takes 40 characters, load balancers 32; neither may end in a hyphen or hold two in a row.
  ledger_id = lower("${trimsuffix(substr(replace(var.resource_name, "/-+/", "-"), 0, 33), "-")}-ledger")
  alb_name  = "${trimsuffix(substr(replace(var.resource_name, "/-+/", "-"), 0, 28), "-")}-alb"

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

  # Every secret that the relay may read; relay_env can name more of them.
  secret_arns = merge(
    { for name, value in var.relay_env : name => value if endswith(name, "_SECRET_ARN") },
    { REDIS_PASSWORD_SECRET_ARN = local.redis_secret_arn },
    { RELAY_TRIGGER_SECRET_SECRET_ARN = local.trigger_secret_arn },
    local.has_token_secret ? { KONG_ADMIN_TOKEN_SECRET_ARN = local.kong_token_secret_arn } : {},
  )

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
    { RELAY_DESTINATION = var.destination },
    local.cloudtrail ? { CHANNEL_ARN = local.channel_arn } : {},
    # By ARN: it also tells the relay the account that its events are for.
    local.cloudwatch ? { RELAY_LOG_GROUP = one(aws_cloudwatch_log_group.audit[*].arn) } : {},
  )
}
