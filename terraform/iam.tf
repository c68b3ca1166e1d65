# Who may do what. Each role names its resources; the one exception stands in aws_iam_role_policy.network.

locals {
  relay_service = var.host == "lambda" ? "lambda.amazonaws.com" : "ecs-tasks.amazonaws.com"

  deliver_statement = local.cloudtrail ? {
    Sid      = "Deliver"
    Effect   = "Allow"
    Action   = ["cloudtrail-data:PutAuditEvents"]
    Resource = [local.channel_arn]
    } : {
    Sid      = "Deliver"
    Effect   = "Allow"
    Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    Resource = ["${local.audit_log_group_arn}:*"]
  }

  # With several keys, each for reading secrets, and the first also for the queue.
  kms_key_arns = concat(var.kms_key_arn == null ? [] : [var.kms_key_arn], var.secret_kms_key_arns)
  kms_services = ["secretsmanager.${var.aws_region}.${local.dns_suffix}", "sqs.${var.aws_region}.${local.dns_suffix}"]

  kms_statements = length(local.kms_key_arns) == 0 ? [] : [{
    Sid       = "UseKeys"
    Effect    = "Allow"
    Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
    Resource  = local.kms_key_arns
    Condition = { StringEquals = { "kms:ViaService" = local.kms_services } }
  }]

  lambda_statements = var.host != "lambda" ? [] : [
    {
      Sid      = "Log"
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource = ["${aws_cloudwatch_log_group.relay.arn}:*"]
    },
    {
      Sid      = "GoOnWithTheBacklog"
      Effect   = "Allow"
      Action   = ["lambda:InvokeFunction"]
      Resource = [local.function_arn]
    },
    {
      Sid      = "ReportFailedEvents"
      Effect   = "Allow"
      Action   = ["sqs:SendMessage"]
      Resource = [aws_sqs_queue.failed[0].arn]
    },
  ]
}

resource "aws_iam_role" "relay" {
  name        = "${var.resource_name}-relay"
  description = "Kong audit relay"
  tags        = var.resource_tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = local.relay_service }
    }]
  })
}

resource "aws_iam_role_policy" "relay" {
  name = "relay"
  role = aws_iam_role.relay.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        local.deliver_statement,
        {
          Sid      = "ReadSecrets"
          Effect   = "Allow"
          Action   = ["secretsmanager:GetSecretValue"]
          Resource = local.secret_resources
        },
      ],
      local.lambda_statements,
      local.kms_statements,
    )
  })
}

# Lambda makes the function's network interfaces with the function's role, and these actions know no resource to name
# (Describe…) or one that does not exist yet. So: everything is allowed to Lambda, and denied to the code in the function.
#tfsec:ignore:aws-iam-no-policy-wildcards -- see above
resource "aws_iam_role_policy" "network" {
  count = local.lambda

  name = "network"
  role = aws_iam_role.relay.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "NetworkInterfaces"
        Effect = "Allow"
        Action = [
          "ec2:AssignPrivateIpAddresses",
          "ec2:CreateNetworkInterface",
          "ec2:DeleteNetworkInterface",
          "ec2:DescribeNetworkInterfaces",
          "ec2:DescribeSubnets",
          "ec2:UnassignPrivateIpAddresses",
        ]
        Resource = "*"
      },
      {
        Sid       = "NotForTheCode"
        Effect    = "Deny"
        Action    = "ec2:*"
        Resource  = "*"
        Condition = { ArnEquals = { "lambda:SourceFunctionArn" = local.function_arn } }
      },
    ]
  })
}

resource "aws_iam_role" "scheduler" {
  count = local.lambda

  name        = "${var.resource_name}-scheduler"
  description = "EventBridge Scheduler, for the Kong audit relay"
  tags        = var.resource_tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "scheduler.amazonaws.com" }
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account }
        ArnEquals    = { "aws:SourceArn" = aws_scheduler_schedule_group.relay[0].arn }
      }
    }]
  })
}

resource "aws_iam_role_policy" "scheduler" {
  count = local.lambda

  name = "scheduler"
  role = aws_iam_role.scheduler[0].id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          Sid      = "Invoke"
          Effect   = "Allow"
          Action   = ["lambda:InvokeFunction"]
          Resource = [local.function_arn]
        },
        {
          Sid      = "DeadLetters"
          Effect   = "Allow"
          Action   = ["sqs:SendMessage"]
          Resource = [aws_sqs_queue.failed[0].arn]
        },
      ],
      # The queue by its service, the schedule itself by Scheduler's.
      var.kms_key_arn == null ? [] : [{
        Sid      = "UseKey"
        Effect   = "Allow"
        Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource = [var.kms_key_arn]
        Condition = {
          StringEquals = {
            "kms:ViaService" = ["sqs.${var.aws_region}.${local.dns_suffix}", "scheduler.${var.aws_region}.${local.dns_suffix}"]
          }
        }
      }],
    )
  })
}

# For the role that Kong runs as: the plugin invokes the function.
resource "aws_iam_policy" "plugin_invoke" {
  count = local.lambda

  name        = "${var.resource_name}-plugin-invoke"
  description = "Lets the Kong plugin trigger the relay"
  tags        = var.resource_tags

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [{
        Sid      = "Trigger"
        Effect   = "Allow"
        Action   = ["lambda:InvokeFunction"]
        Resource = [local.function_arn]
      }],
      # A URL with AWS_IAM asks for both permissions; the one above is the second.
      var.function_url ? [{
        Sid       = "TriggerByURL"
        Effect    = "Allow"
        Action    = ["lambda:InvokeFunctionUrl"]
        Resource  = [local.function_arn]
        Condition = { StringEquals = { "lambda:FunctionUrlAuthType" = "AWS_IAM" } }
      }] : [],
    )
  })
}

resource "aws_iam_role_policy_attachment" "plugin_invoke" {
  count = var.plugin_role_name == null ? 0 : local.lambda

  role       = var.plugin_role_name
  policy_arn = aws_iam_policy.plugin_invoke[0].arn
}
