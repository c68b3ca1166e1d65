# What the plugin's configuration needs, and what a person looks for next.

output "lambda_function" {
  description = "The plugin's `lambda_function`. Null on Fargate."
  value       = one(aws_lambda_function.relay[*].arn)
}

output "relay_url" {
  description = "Where triggers go over HTTP: on Fargate the load balancer's name, which the certificate's name must point to; on Lambda the function URL, if there is one."
  value       = local.fargate == 1 ? "https://${aws_lb.relay[0].dns_name}" : one(aws_lambda_function_url.relay[*].function_url)
}

output "trigger_secret_arn" {
  description = "Secret to give to the plugin as `secret`, by a Kong vault for example."
  value       = local.trigger_secret_arn
}

output "plugin_invoke_policy_arn" {
  description = "Policy for the role that Kong runs as. Null on Fargate."
  value       = one(aws_iam_policy.plugin_invoke[*].arn)
}

output "plugin_invoke_policy_json" {
  description = "The same policy as text, for a role in another place."
  value       = one(aws_iam_policy.plugin_invoke[*].policy)
}

output "role_arn" {
  description = "Role of the relay."
  value       = aws_iam_role.relay.arn
}

output "security_group_id" {
  description = "Security group of the relay: let it in at Kong's Admin API."
  value       = aws_security_group.relay.id
}

output "redis_host" {
  description = "Address of the ledger."
  value       = local.redis_host
}

output "redis_password_secret_arn" {
  description = "Secret with the password of the ledger's user `relay`."
  value       = local.redis_secret_arn
}

output "destination" {
  description = "Where events go: ARN of the channel, or name of the log group."
  value       = local.cloudtrail ? local.channel_arn : local.audit_log_group_name
}

output "event_data_store_arn" {
  description = "The event data store, if it was created here."
  value       = var.create_lake ? lookup(aws_cloudformation_stack.lake[0].outputs, "StoreArn", "") : null
}

output "log_group" {
  description = "Log of the relay."
  value       = aws_cloudwatch_log_group.relay.name
}
