# The relay as a Lambda: triggers by asynchronous invocation, reconciles by schedule, goes on by invoking itself.

locals {
  lambda_zip = coalesce(var.lambda_zip, "${path.module}/lambda.zip")

  # Lambda takes images from ECR only. Any other reference (the first integration's lies on Docker Hub) gives way to the zip.
  image_in_ecr = can(regex("^[0-9]{12}\\.dkr\\.ecr(-fips)?\\.[a-z0-9-]+\\.amazonaws\\.com(\\.cn)?/", var.image))
}

resource "aws_lambda_function" "relay" {
  count = local.lambda

  region        = var.aws_region
  function_name = var.resource_name
  description   = "Moves Kong's audit log to AWS"
  role          = aws_iam_role.relay.arn
  architectures = [var.lambda_architecture]
  memory_size   = var.lambda_memory
  timeout       = var.lambda_timeout
  kms_key_arn   = var.kms_key_arn
  tags          = var.resource_tags

  package_type     = local.image_in_ecr ? "Image" : "Zip"
  image_uri        = local.image_in_ecr ? var.image : null
  filename         = local.image_in_ecr ? null : local.lambda_zip
  source_code_hash = local.image_in_ecr || !fileexists(local.lambda_zip) ? null : filebase64sha256(local.lambda_zip)
  runtime          = local.image_in_ecr ? null : "provided.al2023"
  handler          = local.image_in_ecr ? null : "bootstrap"

  # Two: one that makes the pass and one that leaves a rerun request for it. The lease in the ledger keeps their order, not this number.
  reserved_concurrent_executions = var.reserved_concurrency

  vpc_config {
    subnet_ids         = var.existing_subnet_ids
    security_group_ids = [aws_security_group.relay.id]
  }

  environment {
    variables = local.environment
  }

  # Text: the relay writes its own JSON, and metrics in the embedded format that an envelope would hide.
  logging_config {
    log_format = "Text"
    log_group  = aws_cloudwatch_log_group.relay.name
  }

  # X-Ray is off: the relay records no segments, and sampled traces would say nothing that its metrics do not.
  #tfsec:ignore:aws-lambda-enable-tracing -- low: as said above
  tracing_config {
    mode = "PassThrough"
  }

  lifecycle {
    precondition {
      condition     = local.environment_bytes <= local.environment_limit
      error_message = "The environment of the function would be about ${local.environment_bytes} bytes, and Lambda takes ${local.environment_limit}. Most often a CA takes the room: put its PEM file into the zip (or image) and its path into lambda_env.KONG_ROOT_CA, such as /var/task/kong-ca.pem. README.md says how."
    }
  }

  # Permissions before the first run, and for as long as network interfaces have to be given back.
  depends_on = [aws_iam_role_policy.relay, aws_iam_role_policy.network, aws_cloudformation_stack.audit]
}

# After two retries and an hour at most an event goes to the queue: by then the schedule has done its work.
resource "aws_lambda_function_event_invoke_config" "relay" {
  count = local.lambda

  region                       = var.aws_region
  function_name                = aws_lambda_function.relay[0].function_name
  maximum_retry_attempts       = 2
  maximum_event_age_in_seconds = 3600

  destination_config {
    on_failure {
      destination = aws_sqs_queue.failed[0].arn
    }
  }
}

# The policy in iam.tf says who may use it. Nobody else may.
resource "aws_lambda_function_url" "relay" {
  count = var.function_url ? local.lambda : 0

  region             = var.aws_region
  function_name      = aws_lambda_function.relay[0].function_name
  authorization_type = "AWS_IAM"
}
